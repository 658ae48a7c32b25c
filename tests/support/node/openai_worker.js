// Calls the official `openai` client: each line of standard input names a method, a line answers.
//
// A call is {method, args, headers?, key?, leaveAfter?, abortAfterMs?, final?}, several at once are
// {together: [call, ...]}; tests/support/node_client.py has the sending side. An answer is
// {answer, headers} for a whole answer, {chunks, headers} for a stream or a page, {error} else.

import { createInterface } from "node:readline";
import OpenAI from "openai";

const [baseURL, apiKey] = process.argv.slice(2);
const clientWith = (key) => new OpenAI({ baseURL, apiKey: key, maxRetries: 0, timeout: 60_000 });
const usual = clientWith(apiKey);

async function perform(call) {
  const client = call.key === undefined ? usual : clientWith(call.key);
  const abort = new AbortController();
  const timer =
    call.abortAfterMs === undefined ? null : setTimeout(() => abort.abort(), call.abortAfterMs);
  try {
    const names = call.method.split(".");
    const method = names.pop();
    const owner = names.reduce((parent, name) => parent[name], client);
    const options = { headers: call.headers ?? {}, signal: abort.signal };
    const request = owner[method](...call.args, options);
    if (call.final !== undefined) {
      return { answer: await request[call.final]() };
    }
    const { data, response } = await request.withResponse();
    const headers = Object.fromEntries(response.headers);
    if (data[Symbol.asyncIterator] === undefined) {
      return { answer: data, headers };
    }
    return { chunks: await collect(data, call.leaveAfter ?? Infinity), headers };
  } catch (error) {
    return { error: describe(error) };
  } finally {
    clearTimeout(timer);
  }
}

async function collect(stream, limit) {
  const chunks = [];
  for await (const chunk of stream) {
    chunks.push(chunk);
    if (chunks.length >= limit) break; // as an application that has seen enough: the client aborts
  }
  return chunks;
}

function describe(error) {
  const classes = [];
  for (let at = Object.getPrototypeOf(error); at !== null; at = Object.getPrototypeOf(at)) {
    classes.push(at.constructor.name);
  }
  const { status = null, code = null, param = null, type = null, message } = error;
  return { classes, status, code, param, type, message };
}

for await (const line of createInterface({ input: process.stdin })) {
  const call = JSON.parse(line);
  const done = call.together ? await Promise.all(call.together.map(perform)) : await perform(call);
  process.stdout.write(`${JSON.stringify(done)}\n`);
}
