// One panel of a dashboard, drawn by Grafana's own components.

import { getFieldDisplayValues, VizOrientation } from '@grafana/data';
import { BigValue, PanelChrome, Table, TimeSeries, VizRepeater } from '@grafana/ui';
import { useLayoutEffect } from 'react';

import { withFields } from './fields.js';

const MARK_WIDTH = 1;

// Vertical lines where stages changed, as Grafana's annotations.
function Marks({ config, marks }) {
  useLayoutEffect(() => {
    config.addHook('draw', (plot) => {
      const { ctx, bbox } = plot;
      ctx.save();
      ctx.setLineDash([4 * devicePixelRatio, 4 * devicePixelRatio]);
      ctx.lineWidth = MARK_WIDTH * devicePixelRatio;
      for (const mark of marks) {
        const x = Math.round(plot.valToPos(mark.time, 'x', true));
        if (x < bbox.left || x > bbox.left + bbox.width) {
          continue;
        }
        ctx.strokeStyle = mark.color;
        ctx.beginPath();
        ctx.moveTo(x, bbox.top);
        ctx.lineTo(x, bbox.top + bbox.height);
        ctx.stroke();
      }
      ctx.restore();
    });
  }, [config, marks]);
  return null;
}

function Course({ panel, data, size, timeRange, marks }) {
  return (
    <TimeSeries
      frames={data}
      structureRev={1}
      width={size.width}
      height={size.height}
      timeRange={timeRange}
      timeZone="utc"
      legend={panel.options.legend}
      options={panel.options}
    >
      {(config) => <Marks config={config} marks={marks} />}
    </TimeSeries>
  );
}

function Numbers({ panel, data, fieldConfig, size, theme }) {
  const { options } = panel;
  const values = () =>
    getFieldDisplayValues({
      fieldConfig,
      reduceOptions: options.reduceOptions,
      replaceVariables: (text) => text,
      theme,
      data,
      timeZone: 'utc',
    });
  return (
    <VizRepeater
      source={data}
      getValues={values}
      renderCounter={1}
      width={size.width}
      height={size.height}
      orientation={VizOrientation.Auto}
      autoGrid={true}
      renderValue={({ value, width, height, count }) => (
        <BigValue
          value={value.display}
          count={count}
          width={width}
          height={height}
          colorMode={options.colorMode}
          graphMode={options.graphMode}
          justifyMode={options.justifyMode ?? 'auto'}
          textMode={options.textMode}
          theme={theme}
        />
      )}
    />
  );
}

function Rows({ panel, data, size }) {
  return <Table data={data[0]} width={size.width} height={size.height} cellHeight={panel.options.cellHeight} />;
}

const DRAWN_BY = { timeseries: Course, stat: Numbers, table: Rows };

function Empty({ panel, size }) {
  const style = { width: size.width, height: size.height, display: 'grid', placeItems: 'center', color: '#8e8e8e' };
  return <div style={style}>{panel.fieldConfig.defaults.noValue ?? 'No data'}</div>;
}

export function Panel({ panel, frames, width, height, theme, timeRange, marks }) {
  const Drawn = DRAWN_BY[panel.type];
  if (!Drawn) {
    throw new Error(`${panel.title}: no way to draw a ${panel.type}; there is ${Object.keys(DRAWN_BY)}`);
  }
  const { data, fieldConfig } = withFields(panel, frames, theme);
  const isEmpty = !data.some((frame) => frame.length > 0);
  return (
    <PanelChrome title={panel.title} description={panel.description} width={width} height={height}>
      {(innerWidth, innerHeight) => {
        const size = { width: innerWidth, height: innerHeight };
        return isEmpty ? (
          <Empty panel={panel} size={size} />
        ) : (
          <Drawn {...{ panel, data, fieldConfig, size, theme, timeRange, marks }} />
        );
      }}
    </PanelChrome>
  );
}
