//! An authority for one test: Debian's `pebble`, which asks a DNS server of the test.
//!
//! In: a block, certificates, a DNS server. Out: a running authority; its root.

use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use openssl::x509::X509;

use crate::certs::{Certs, Key};
use crate::client::{Dial, curl};
use crate::deadline;
use crate::dns::server::Dns;
use crate::vip::{Block, port};

/// A running authority; dropping it ends it.
pub struct Pebble {
    child: Child,
    host: String,
    dir: tempfile::TempDir,
}

impl Pebble {
    /// Starts it at an address of the block, which asks `dns` for the addresses of names. Its server has a
    /// certificate of `certs`. With `customer`, an id and a key in base64url, it registers only this one.
    pub async fn start(
        block: &Block,
        certs: &Certs,
        dns: &Dns,
        customer: Option<(&str, &str)>,
    ) -> Pebble {
        let dir = tempfile::tempdir().expect("a folder");
        let ip = block.ip("10.0.0.40");
        let leaf = certs.leaf("pebble", &[&ip.to_string()], Key::Ecdsa);
        let conf = serde_json::json!({ "pebble": {
            "listenAddress": format!("{ip}:14000"),
            "managementListenAddress": format!("{ip}:15000"),
            "certificate": leaf.chain,
            "privateKey": leaf.key,
            "httpPort": port(80),
            "tlsPort": port(443),
            "externalAccountBindingRequired": customer.is_some(),
            "externalAccountMACKeys": BTreeMap::from_iter(customer),
        }});
        let path = dir.path().join("pebble.json");
        std::fs::write(&path, conf.to_string()).expect("write");
        let log = std::fs::File::create(dir.path().join("log")).expect("a log");
        let mut command = Command::new("pebble");
        command.arg("-config").arg(&path);
        command.args(["-dnsserver", &dns.addr.to_string()]);
        // At once; no good nonce refused; each order proves its names anew.
        let how = [("PEBBLE_VA_NOSLEEP", "1"), ("PEBBLE_WFE_NONCEREJECT", "0")];
        command.envs(how).env("PEBBLE_AUTHZREUSE", "0");
        command.stdin(Stdio::null()).stderr(Stdio::null());
        let child = command.stdout(log).spawn();
        let child = child.expect("pebble, which `tests/setup.sh test` installs");
        let host = ip.to_string();
        let pebble = Pebble { child, host, dir };
        let at = (ip, 14000).into();
        deadline("pebble", async {
            while Dial::plain(at).try_tcp().await.is_err() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
        pebble
    }

    /// The URL of its directory.
    pub fn url(&self) -> String {
        format!("https://{}:14000/dir", self.host)
    }

    /// The root of the certificates that it issues.
    pub async fn root(&self) -> X509 {
        let pem = curl(&["-sSk", &format!("https://{}:15000/roots/0", self.host)]).await;
        X509::from_pem(pem.as_bytes()).expect("PEM")
    }
}

impl Drop for Pebble {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.dir.path().join("log"));
            eprintln!("--- log of pebble ---\n{}", log.unwrap_or_default());
        }
    }
}
