//! Fuzz target `proxy_protocol`: the first bytes of a connection from a balancer, versions 1 and 2.
//!
//! Fails where the number of bytes that have come changes the answer, or where a header that we write for the
//! same addresses is read as others. Source: PROXY protocol §2.

use pushgate_plugins::PluginConfig;
use pushgate_plugins::api::{Flow, TlsFacts};
use pushgate_plugins::context::{Build, Keep, Mode};
use pushgate_plugins::unix::is_unix;

use super::*;
use crate::fuzzing::pieces;

/// Reads `data` as a header.
pub fn run(data: &[u8]) {
    let whole = parse(data);
    for bytewise in [true, false] {
        let mut got = 0;
        for piece in pieces(data, bytewise && data.len() < 300) {
            got += piece.len();
            match (parse(&data[..got]), &whole) {
                // Not enough yet: the header goes beyond what has come.
                (Ok(None), Ok(Some((length, _)))) => assert!(got < *length, "at {got}"),
                (Ok(None), _) => {}
                (Err(_), Err(_)) => {}
                (early, whole) => {
                    assert_eq!(early, *whole, "after {got} bytes");
                }
            }
        }
    }
    let Ok(Some((length, announced))) = whole else {
        return;
    };
    assert!(length <= data.len() && length <= MAX_HEADER);
    assert_eq!(parse(&data[..length]), parse(data));
    if let Some((client, vip)) = announced.addresses {
        for version in [1, 2] {
            check_written(version, client, vip, announced.tls.as_ref());
        }
    }
}

/// Writes a header as the plugin does, and reads it.
fn check_written(version: u8, client: SocketAddr, vip: SocketAddr, tls: Option<&Tls>) {
    let build = Build {
        listener: "push",
        mode: Mode::Tcp,
        tls: true,
        nodes: &[],
        pools: &[],
        dir: std::path::Path::new("/"),
        keep: &Keep::default(),
    };
    let facts = tls.map(|tls| TlsFacts {
        sni: tls.authority.as_deref(),
        version: tls.version,
        client: None,
    });
    let flow = Flow {
        listener: "push",
        client,
        peer: client,
        source: client.ip(),
        vip,
        tls: facts,
        host: "",
        request: None,
        body: b"",
        wall: std::time::SystemTime::UNIX_EPOCH,
        now: std::time::Instant::now(),
        random: 0,
        last: None,
    };
    let config = pushgate_plugins::proxy_protocol::Config {
        version,
        authority: true,
        ssl: true,
    };
    let Ok(plugin) = PluginConfig::ProxyProtocol(config).build(&build) else {
        panic!("version {version} can be built");
    };
    let mut written = Vec::new();
    let preamble = plugin.preamble.expect("it writes a preamble");
    preamble.preamble(&flow, &mut written);
    let (length, again) = parse(&written)
        .expect("a legal header")
        .expect("a whole one");
    assert_eq!(length, written.len());
    let same = |a: SocketAddr, b: SocketAddr| {
        (a.ip().to_canonical(), a.port()) == (b.ip().to_canonical(), b.port())
    };
    let Some(addresses) = again.addresses else {
        // Those that stand for Unix sockets are not written.
        assert!(is_unix(client.ip()) || is_unix(vip.ip()), "{client} {vip}");
        return;
    };
    assert!(
        same(addresses.0, client) && same(addresses.1, vip),
        "{addresses:?}"
    );
    if version == 2 && tls.is_some_and(|tls| tls.version != "TLS") {
        assert_eq!(again.tls.as_ref(), tls);
    }
}
