// The dashboard's field settings (unit, limits, colours, overrides) applied as Grafana applies them.

import { applyFieldOverrides, FieldConfigOptionsRegistry } from '@grafana/data';

const STANDARD = ['unit', 'min', 'max', 'decimals', 'displayName', 'noValue', 'color', 'thresholds', 'mappings', 'links'];
const CUSTOM = [
  'drawStyle', 'lineInterpolation', 'lineWidth', 'fillOpacity', 'gradientMode', 'lineStyle', 'fillBelowTo',
  'spanNulls', 'insertNulls', 'showPoints', 'pointSize', 'stacking', 'axisPlacement', 'axisLabel', 'axisColorMode',
  'axisBorderShow', 'axisSoftMin', 'axisSoftMax', 'axisWidth', 'axisCenteredZero', 'scaleDistribution', 'barAlignment', 'hideFrom',
  'thresholdsStyle', 'cellOptions', 'align', 'filterable', 'inspect', 'width', 'minWidth',
];

function item(path, isCustom) {
  return {
    id: isCustom ? `custom.${path}` : path,
    path,
    name: path,
    isCustom,
    settings: {},
    process: (value) => value,
    shouldApply: () => true,
  };
}

const REGISTRY = new FieldConfigOptionsRegistry(() => [
  ...STANDARD.map((path) => item(path, false)),
  ...CUSTOM.map((path) => item(path, true)),
]);

// What Grafana's panels assume where the dashboard says nothing.
const DEFAULTS = {
  timeseries: {
    color: { mode: 'palette-classic' },
    custom: {
      drawStyle: 'line', lineInterpolation: 'linear', lineWidth: 1, fillOpacity: 0, gradientMode: 'none',
      spanNulls: false, insertNulls: false, showPoints: 'auto', pointSize: 5,
      stacking: { mode: 'none', group: 'A' }, axisPlacement: 'auto', axisLabel: '', axisColorMode: 'text',
      axisBorderShow: false, axisCenteredZero: false, scaleDistribution: { type: 'linear' }, barAlignment: 0,
      hideFrom: { tooltip: false, viz: false, legend: false }, thresholdsStyle: { mode: 'off' },
    },
  },
  stat: { color: { mode: 'thresholds' }, custom: {} },
  table: {
    color: { mode: 'thresholds' },
    custom: { align: 'auto', cellOptions: { type: 'auto' }, inspect: false, filterable: false },
  },
};

function settings(panel) {
  const { defaults, overrides } = panel.fieldConfig;
  const assumed = DEFAULTS[panel.type];
  const custom = { ...assumed.custom, ...defaults.custom };
  if (custom.stacking && !custom.stacking.group) {
    custom.stacking = { ...custom.stacking, group: 'A' };
  }
  return { defaults: { ...assumed, ...defaults, custom }, overrides: overrides ?? [] };
}

export function withFields(panel, frames, theme) {
  const fieldConfig = settings(panel);
  const data = applyFieldOverrides({
    data: frames,
    fieldConfig,
    replaceVariables: (text) => text,
    theme,
    timeZone: 'utc',
    fieldConfigRegistry: REGISTRY,
  });
  return { data, fieldConfig };
}
