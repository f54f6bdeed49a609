//! Pingora with nothing added, for `benches/run.py`. Shows which part of a request's cost is the library's.
//!
//! In: `pingora PLAIN TLS CERTIFICATE KEY NODE NODE`, where all but the two files are addresses. Out: a
//! reverse proxy with one thread and default settings, which sends each client address to one of two nodes.

use std::error::Error;
use std::hash::{DefaultHasher, Hash, Hasher};

use async_trait::async_trait;
use pingora::prelude::*;
use pingora::server::configuration::ServerConf;

/// The same allocator as the edge's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

struct Nodes([String; 2]);

#[async_trait]
impl ProxyHttp for Nodes {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(&self, session: &mut Session, _: &mut ()) -> Result<Box<HttpPeer>> {
        let mut hasher = DefaultHasher::new();
        session
            .client_addr()
            .map(ToString::to_string)
            .hash(&mut hasher);
        let node = &self.0[usize::from(hasher.finish() & 1 == 1)];
        Ok(Box::new(HttpPeer::new(node.as_str(), false, String::new())))
    }
}

fn main() -> std::result::Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [plain, tls, certificate, key, first, second] = &args[..] else {
        return Err("usage: pingora PLAIN TLS CERTIFICATE KEY NODE NODE".into());
    };
    let conf = ServerConf {
        threads: 1,
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let nodes = Nodes([first.clone(), second.clone()]);
    let mut service = http_proxy_service(&server.configuration, nodes);
    service.add_tcp(plain);
    service.add_tls(tls, certificate, key)?;
    server.add_service(service);
    server.run_forever()
}
