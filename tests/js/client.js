// Drives the unmodified Lightstreamer client. In: options as JSON in argv[2], then commands on standard
// input. Out: JSON lines.
//
// Options: server (URL), transport (forced, or absent for stream-sense), cookies (bool),
// adapterSet, items, fields, retryDelay (ms), resolve ({host: address}), localAddress, log (level),
// ignoreInstance (bool: ignore <control_link_address>).
// Out: {"event":"status"|"update"|"subscribed"|"error"|"message"|"lost", ...}.
// In, one per line: {"do":"transport","name":…} {"do":"message","text":…} {"do":"connect"}
// {"do":"disconnect"}. The end of the input ends the client.
'use strict';
const dns = require('node:dns');
const net = require('node:net');
const readline = require('node:readline');

const options = JSON.parse(process.argv[2]);
const out = (event, more) => process.stdout.write(JSON.stringify({ event, ...more }) + '\n');

// Resolves the guide's names from the options, as a hosts file would; the library is unmodified.
const lookup = dns.lookup;
dns.lookup = (host, opts, done) => {
  const callback = done || opts;
  const address = (options.resolve || {})[host];
  if (!address) return lookup(host, opts, done);
  const family = net.isIP(address);
  const all = typeof opts === 'object' && opts.all;
  process.nextTick(() => (all ? callback(null, [{ address, family }]) : callback(null, address, family)));
};
// Gives the client its own source address, which IP stickiness needs.
if (options.localAddress) {
  const connect = net.Socket.prototype.connect;
  net.Socket.prototype.connect = function (...args) {
    const target = Array.isArray(args[0]) ? args[0][0] : args[0];
    if (target && typeof target === 'object') target.localAddress = options.localAddress;
    return connect.apply(this, args);
  };
}

const ls = require('lightstreamer-client-node');
if (options.log) {
  ls.LightstreamerClient.setLoggerProvider(new ls.ConsoleLoggerProvider(options.log));
  console.log = (...args) => process.stderr.write(args.join(' ') + '\n');
}
const client = new ls.LightstreamerClient(options.server, options.adapterSet || 'TEST');
if (options.transport) client.connectionOptions.setForcedTransport(options.transport);
if (options.cookies) client.connectionOptions.setCookieHandlingRequired(true);
if (options.ignoreInstance) client.connectionOptions.setServerInstanceAddressIgnored(true);
if (options.retryDelay) client.connectionOptions.setRetryDelay(options.retryDelay);

client.addListener({
  onStatusChange: (status) => {
    const address = client.connectionDetails.getServerInstanceAddress();
    const session = client.connectionDetails.getSessionId();
    const node = client.connectionDetails.getServerSocketName();
    out('status', { status, session, node, address });
    if (status === 'DISCONNECTED' && closing) process.exit(0);
  },
  onServerError: (code, message) => out('error', { code, message }),
});

let closing = false;
const subscription = new ls.Subscription('MERGE', options.items || ['item1', 'item2'], options.fields || ['n', 'm']);
subscription.setRequestedSnapshot('no');
subscription.addListener({
  onSubscription: () => out('subscribed', {}),
  onSubscriptionError: (code, message) => out('error', { code, message }),
  onItemLostUpdates: (item, _, lost) => out('lost', { item, lost }),
  onItemUpdate: (update) => out('update', { item: update.getItemPos(), value: update.getValue(1) }),
});
client.subscribe(subscription);
client.connect();

function disconnect() {
  closing = true;
  if (client.getStatus() === 'DISCONNECTED') process.exit(0);
  client.disconnect();
  // Give the client's last message time to reach the socket before the process exits.
  setTimeout(() => process.exit(0), 500);
}

readline
  .createInterface({ input: process.stdin })
  .on('line', (line) => {
    const command = JSON.parse(line);
    if (command.do === 'transport') client.connectionOptions.setForcedTransport(command.name || null);
    if (command.do === 'message') {
      client.sendMessage(command.text, null, -1, { onProcessed: (text) => out('message', { text }) });
    }
    if (command.do === 'connect') client.connect();
    if (command.do === 'disconnect') disconnect();
  })
  .on('close', disconnect);
