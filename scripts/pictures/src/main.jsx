// One dashboard laid out on Grafana's grid of 24 columns. `?dashboard=NAME`; the server has the data.

import { createTheme, dateTime, ThemeContext } from '@grafana/data';
import { GlobalStyles } from '@grafana/ui';
import { Component } from 'react';
import { createRoot } from 'react-dom/client';

import { framesOf } from './frames.js';
import { Panel } from './panels.jsx';

const COLUMNS = 24;
const CELL = 30;
const GAP = 8;
const HEAD = 56;

const theme = createTheme({ colors: { mode: 'dark' } });
const faults = [];

class Guarded extends Component {
  state = { fault: null };

  static getDerivedStateFromError(fault) {
    return { fault };
  }

  componentDidCatch(fault) {
    faults.push(`${this.props.title}: ${fault.message}`);
  }

  render() {
    return this.state.fault ? <pre style={{ color: 'red' }}>{String(this.state.fault)}</pre> : this.props.children;
  }
}

function placed({ x, y, w, h }, width) {
  const column = (width - GAP) / COLUMNS;
  return {
    left: GAP + x * column,
    top: HEAD + y * (CELL + GAP),
    width: w * column - GAP,
    height: h * (CELL + GAP) - GAP,
  };
}

function Heading({ title, place }) {
  const style = { position: 'absolute', ...place, font: theme.typography.h5.fontSize, lineHeight: `${place.height}px` };
  return <div style={{ ...style, fontSize: 16, fontWeight: 500, color: theme.colors.text.primary }}>{title}</div>;
}

function Top({ dashboard, input, width }) {
  const chosen = Object.entries(input.choice).map(([name, value]) => `${name}: ${value}`);
  const [from, to] = [input.range.from, input.range.to].map((time) => dateTime(time).utc().format('YYYY-MM-DD HH:mm:ss'));
  const style = { position: 'absolute', left: GAP, top: 12, width: width - 2 * GAP, display: 'flex', alignItems: 'baseline', gap: 24 };
  return (
    <div style={{ ...style, color: theme.colors.text.secondary, fontSize: 13 }}>
      <span style={{ fontSize: 20, color: theme.colors.text.primary, flexGrow: 1 }}>{dashboard.title}</span>
      {chosen.map((one) => (
        <span key={one}>{one}</span>
      ))}
      <span>
        {from} to {to} UTC
      </span>
    </div>
  );
}

function Dashboard({ input, frames }) {
  const { dashboard, range } = input;
  const width = window.innerWidth;
  const timeRange = { from: dateTime(range.from), to: dateTime(range.to), raw: { from: dateTime(range.from), to: dateTime(range.to) } };
  return (
    <>
      <Top dashboard={dashboard} input={input} width={width} />
      {dashboard.panels.map((panel) => {
        const place = placed(panel.gridPos, width);
        if (panel.type === 'row') {
          return panel.collapsed ? null : <Heading key={panel.id} title={panel.title} place={place} />;
        }
        return (
          <div key={panel.id} style={{ position: 'absolute', ...place }}>
            <Guarded title={panel.title}>
              <Panel
                panel={panel}
                frames={frames[panel.id]}
                width={place.width}
                height={place.height}
                theme={theme}
                timeRange={timeRange}
                marks={input.marks.map((mark) => ({ ...mark, color: theme.visualization.getColorByName(mark.color) }))}
              />
            </Guarded>
          </div>
        );
      })}
    </>
  );
}

async function report(content) {
  await fetch('drawn', { method: 'POST', body: JSON.stringify(content) });
}

async function main() {
  const name = new URLSearchParams(location.search).get('dashboard');
  const input = await (await fetch(`input/${name}.json`)).json();
  const frames = {};
  for (const panel of input.dashboard.panels.filter((one) => one.type !== 'row')) {
    frames[panel.id] = await framesOf(panel, input.answers[panel.id], input.range);
  }
  createRoot(document.getElementById('root')).render(
    <ThemeContext.Provider value={theme}>
      <GlobalStyles />
      <Dashboard input={input} frames={frames} />
    </ThemeContext.Provider>
  );
  await new Promise((resolve) => setTimeout(resolve, 1500));
  await report({ name, panels: document.querySelectorAll('section').length, faults });
}

window.addEventListener('error', (event) => faults.push(event.message));
main().catch((fault) => report({ name: '', panels: 0, faults: [String(fault.stack)] }));
