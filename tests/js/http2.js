// The http2 module of Node.js against an edge: one connection with requests and a WebSocket.
//
// In: the origin, its address and port. Out: one JSON line with the result of each stream.
'use strict';
const http2 = require('node:http2');
const net = require('node:net');
const tls = require('node:tls');

const [origin, address, port] = process.argv.slice(2);
const servername = new URL(origin).hostname;
const session = http2.connect(origin, {
  createConnection: () => tls.connect({ socket: net.connect(port, address), servername, ALPNProtocols: ['h2'] }),
});

// Sends `pieces`, each in its own write, and resolves with the answer.
function ask(headers, pieces = []) {
  return new Promise((resolve, reject) => {
    const stream = session.request(headers, { endStream: false });
    const answer = { body: '', pieces: 0, continued: 0 };
    stream.setEncoding('utf8');
    stream.on('continue', () => { answer.continued += 1; });
    stream.on('response', (head) => { answer.status = head[':status']; });
    stream.on('data', (data) => { answer.body += data; answer.pieces += 1; });
    stream.on('end', () => resolve(answer));
    stream.on('error', reject);
    (async () => {
      for (const piece of pieces) {
        stream.write(piece);
        await new Promise((later) => setTimeout(later, 5));
      }
      stream.end();
    })();
  });
}

// Sends `hello` in a masked frame and resolves with the bytes of the echo.
function websocket() {
  return new Promise((resolve, reject) => {
    const stream = session.request({
      ':method': 'CONNECT',
      ':protocol': 'websocket',
      ':path': '/ws/echo',
      'sec-websocket-version': '13',
    }, { endStream: false });
    stream.on('response', (head) => {
      if (head[':status'] !== 200) reject(new Error(`status ${head[':status']}`));
      stream.write(Buffer.concat([Buffer.from([0x81, 0x85, 0, 0, 0, 0]), Buffer.from('hello')]));
    });
    stream.on('data', (data) => {
      resolve(data.subarray(2).toString());
      stream.end();
    });
    stream.on('error', reject);
  });
}

session.on('remoteSettings', async (settings) => {
  const out = { takesWebsockets: settings.enableConnectProtocol };
  const upload = { ':method': 'POST', ':path': '/echo' };
  [out.hello, out.stream, out.upload, out.expect, out.websocket] = await Promise.all([
    ask({ ':path': '/hello' }),
    ask({ ':path': '/stream/chunked?n=20&every=5&size=100' }),
    ask(upload, ['one ', 'two ', 'three']),
    ask({ ...upload, expect: '100-continue' }, ['body']),
    websocket(),
  ]);
  console.log(JSON.stringify(out));
  session.close();
});
session.on('error', (e) => { throw e; });
