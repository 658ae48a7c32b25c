import { defineConfig } from 'vite';

export default defineConfig({
  base: './',
  define: { 'process.env': {}, 'process.env.NODE_ENV': '"production"', global: 'globalThis' },
  esbuild: { jsx: 'automatic' },
  build: { outDir: 'dist', chunkSizeWarningLimit: 10000, reportCompressedSize: false, sourcemap: false },
});
