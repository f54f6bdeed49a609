// Push servers and clients whose session id stands inside JSON: Socket.IO and SignalR.
//
// In: options as JSON in argv[2]. `role`: server or client; `kind`: socketio or signalr. A server has `name`,
// `host`, `port`; a client has `url`, `transport`, `sessions` (how many, all at once), `asks` (calls of each).
// Out: JSON lines: {"event":"listening"}, {"event":"wrong"} (a server was asked for a session that it does not
// have), {"event":"session","node","transport"}, {"event":"failed","why"}, {"event":"done"}.
// The end of the input ends the process. Clients keep no cookies. The libraries are unmodified; the SignalR
// server below speaks the transports and the JSON hub protocol of ASP.NET Core, which needs .NET.
'use strict';
const http = require('node:http');
const crypto = require('node:crypto');

const options = JSON.parse(process.argv[2]);
const out = (event, more) => process.stdout.write(JSON.stringify({ event, ...more }) + '\n');
process.stdin.on('data', () => {}).on('end', () => process.exit(0));

const roles = { server: { socketio: socketioServer, signalr: signalrServer },
  client: { socketio: socketioClient, signalr: signalrClient } };
roles[options.role][options.kind]();

// Answers the edge's health checks.
function health(request, response) {
  if (request.url !== '/health') return false;
  response.end('ok');
  return true;
}

function listen(server) {
  server.listen(options.port, options.host, () => out('listening', {}));
}

function socketioServer() {
  const { Server } = require('socket.io');
  const server = http.createServer((request, response) => health(request, response));
  const io = new Server(server);
  // "Session ID unknown" and the like.
  io.engine.on('connection_error', (e) => out('wrong', { why: e.message }));
  io.on('connection', (socket) => socket.on('ask', (done) => done(options.name)));
  listen(server);
}

// A session of the server below.
class Hub {
  constructor() {
    this.waiting = [];
    this.send = null;
  }

  // Takes records of the hub protocol from the client.
  take(text) {
    for (const record of text.split('\x1e').filter(Boolean)) {
      const message = JSON.parse(record);
      if (message.protocol) this.tell({});
      if (message.type === 1) this.tell({ type: 3, invocationId: message.invocationId, result: options.name });
    }
  }

  tell(message) {
    this.waiting.push(JSON.stringify(message) + '\x1e');
    this.flush();
  }

  // Gives what waits to the transport, if it takes something now.
  flush() {
    if (this.send && this.waiting.length) this.send(this.waiting.splice(0).join(''));
  }
}

function signalrServer() {
  const sessions = new Map();
  const server = http.createServer((request, response) => {
    if (health(request, response)) return;
    const url = new URL(request.url, 'http://x');
    if (url.pathname === '/hub/negotiate') return negotiate(sessions, response);
    const hub = sessions.get(url.searchParams.get('id'));
    if (!hub) {
      out('wrong', { why: request.method });
      response.writeHead(404);
      return response.end('No Connection with that ID');
    }
    transport(hub, request, response);
  });
  const { WebSocketServer } = require('ws');
  const sockets = new WebSocketServer({ noServer: true });
  server.on('upgrade', (request, socket, head) => {
    const hub = sessions.get(new URL(request.url, 'http://x').searchParams.get('id'));
    if (!hub) {
      out('wrong', { why: 'upgrade' });
      return socket.end('HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n');
    }
    sockets.handleUpgrade(request, socket, head, (ws) => {
      hub.send = (text) => ws.send(text);
      ws.on('message', (text) => hub.take(String(text)));
      hub.flush();
    });
  });
  listen(server);
}

function negotiate(sessions, response) {
  const token = crypto.randomBytes(16).toString('base64url');
  sessions.set(token, new Hub());
  const all = ['WebSockets', 'ServerSentEvents', 'LongPolling'];
  response.setHeader('Content-Type', 'application/json');
  response.end(JSON.stringify({
    negotiateVersion: 1,
    connectionId: crypto.randomBytes(16).toString('base64url'),
    connectionToken: token,
    availableTransports: all.map((transport) => ({ transport, transferFormats: ['Text'] })),
  }));
}

// Server-sent events and long polling.
function transport(hub, request, response) {
  if (request.method === 'POST') {
    let text = '';
    return request.on('data', (data) => (text += data)).on('end', () => {
      response.end();
      hub.take(text);
    });
  }
  if (request.method === 'DELETE') {
    response.writeHead(202);
    return response.end();
  }
  if (request.headers.accept === 'text/event-stream') {
    response.writeHead(200, { 'Content-Type': 'text/event-stream' });
    response.write(':\r\n\r\n');
    hub.send = (text) => response.write(`data: ${text}\r\n\r\n`);
    return hub.flush();
  }
  // The first poll only opens the transport.
  if (!hub.polled) {
    hub.polled = true;
    return response.end();
  }
  hub.send = (text) => {
    hub.send = null;
    response.end(text);
  };
  hub.flush();
}

// Opens all sessions at once, makes each call its server, and reports.
async function sessions(one) {
  const all = Array.from({ length: options.sessions }, () =>
    one().catch((e) => out('failed', { why: String(e) })));
  await Promise.all(all);
  out('done', {});
}

function socketioClient() {
  const { io } = require('socket.io-client');
  const transports = options.transport === 'websocket' ? ['polling', 'websocket'] : [options.transport];
  sessions(() => new Promise((done, failed) => {
    const socket = io(options.url, { transports, forceNew: true, reconnection: false });
    socket.on('connect_error', failed);
    socket.on('disconnect', (why) => failed(new Error(why)));
    socket.on('connect', () => ask().then(done, failed));
    const ask = async () => {
      const { engine } = socket.io;
      if (engine.transport.name !== options.transport) await new Promise((upgraded) => engine.once('upgrade', upgraded));
      let node;
      for (let n = 0; n < options.asks; n++) node = await socket.timeout(10_000).emitWithAck('ask');
      out('session', { node, transport: engine.transport.name });
    };
  }));
}

function signalrClient() {
  const { HubConnectionBuilder, HttpTransportType, LogLevel } = require('@microsoft/signalr');
  sessions(async () => {
    const transport = HttpTransportType[options.transport];
    const hub = new HubConnectionBuilder().withUrl(options.url + '/hub', { transport, withCredentials: false })
      .configureLogging(LogLevel.None).build();
    await hub.start();
    let node;
    for (let n = 0; n < options.asks; n++) node = await hub.invoke('ask');
    out('session', { node, transport: options.transport });
  });
}
