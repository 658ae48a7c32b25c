// From Prometheus's answers to the data frames that Grafana's panels draw.

import { FieldType, standardTransformers, standardTransformersRegistry, transformDataFrame } from '@grafana/data';

standardTransformersRegistry.setInit(() =>
  [standardTransformers.mergeTransformer, standardTransformers.organizeFieldsTransformer].map((one) => ({
    id: one.id,
    name: one.name,
    transformation: one,
  }))
);

// Grafana's legend: {{label}}, or the series itself where no format is given.
function named(legend, labels) {
  if (legend) {
    return legend.replace(/{{\s*(\w+)\s*}}/g, (_, label) => labels[label] ?? label);
  }
  const inside = Object.entries(labels).map(([name, value]) => `${name}="${value}"`);
  return `{${inside.join(', ')}}`;
}

function numberOf(text) {
  const value = Number(text);
  return Number.isFinite(value) ? value : null;
}

// A point for every step: where Prometheus has none there is a gap, as Grafana draws it.
function courseFrame(target, series, range) {
  const { __name__, ...labels } = series.metric;
  const values = new Map(series.values.map(([seconds, text]) => [Math.round(seconds * 1000), numberOf(text)]));
  const times = [];
  for (let time = range.from; time <= range.to; time += range.step) {
    times.push(time);
  }
  return {
    refId: target.refId,
    length: times.length,
    fields: [
      { name: 'Time', type: FieldType.time, config: { interval: range.step }, values: times },
      {
        name: 'Value',
        type: FieldType.number,
        labels,
        config: { displayNameFromDS: named(target.legendFormat, labels) },
        values: times.map((time) => values.get(time) ?? null),
      },
    ],
  };
}

function nowFrame(target, series) {
  const { __name__, ...labels } = series.metric;
  return {
    refId: target.refId,
    length: 1,
    fields: [
      { name: 'Time', type: FieldType.time, config: {}, values: [series.value[0] * 1000] },
      {
        name: 'Value',
        type: FieldType.number,
        labels,
        config: { displayNameFromDS: named(target.legendFormat, labels) },
        values: [numberOf(series.value[1])],
      },
    ],
  };
}

function tableFrame(target, result, isOneOfSeveral) {
  const labels = [...new Set(result.flatMap((series) => Object.keys(series.metric)))].filter((one) => one !== '__name__');
  return {
    refId: target.refId,
    length: result.length,
    fields: [
      { name: 'Time', type: FieldType.time, config: {}, values: result.map((series) => series.value[0] * 1000) },
      ...labels.map((label) => ({
        name: label,
        type: FieldType.string,
        config: {},
        values: result.map((series) => series.metric[label] ?? ''),
      })),
      {
        name: isOneOfSeveral ? `Value #${target.refId}` : 'Value',
        type: FieldType.number,
        config: {},
        values: result.map((series) => numberOf(series.value[1])),
      },
    ],
  };
}

function transformed(frames, transformations) {
  return new Promise((resolve, reject) => {
    const context = { interpolate: (text) => text };
    transformDataFrame(transformations, frames, context).subscribe({ next: resolve, error: reject });
  });
}

// All frames of a panel, transformations applied. `answers` has one result a target, by its refId.
export async function framesOf(panel, answers, range) {
  const frames = [];
  for (const target of panel.targets) {
    const result = answers[target.refId].result;
    if (target.format === 'table') {
      frames.push(tableFrame(target, result, panel.targets.length > 1));
    } else {
      frames.push(...result.map((series) => (target.instant ? nowFrame(target, series) : courseFrame(target, series, range))));
    }
  }
  const filled = frames.filter((frame) => frame.length > 0);
  return panel.transformations?.length ? transformed(filled, panel.transformations) : filled;
}
