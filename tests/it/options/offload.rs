//! Shared by the options whose TLS ends at the edge and whose nodes have their own names.
//!
//! In: the names of each certificate in the conf file, and whether CR goes straight to the nodes. Out: a
//! [`Cluster`] whose clients verify the names. Source: Lightstreamer clustering §3.2.1.3, §3.2.1.4, §3.2.2.3,
//! §3.2.2.4.

use crate::certs::{Certs, Key};
use crate::vip::port;

use super::Cluster;

/// A cluster and the authority of its certificates.
pub struct Offload {
    /// Nodes, edge and clients.
    pub cluster: Cluster,
    /// Keeps the folder of the certificates.
    _certs: Certs,
}

impl Offload {
    /// Starts the edge from `conf`, whose certificates are `files` with the names each covers. With
    /// `straight`, nodes also end TLS themselves on their public addresses.
    pub async fn start(conf: &str, files: &[(&str, &[&str])], straight: bool) -> Offload {
        let certs = Certs::new();
        let changes = issue(&certs, files);
        let changes: Vec<_> = changes.iter().map(|(a, b)| (&**a, &**b)).collect();
        let at = ["10.0.0.1:80", "10.0.0.2:80"];
        // With names in two domains, each node announces its name below the domain that its client used.
        let mut names = files.iter().flat_map(|(_, names)| *names);
        let one = names.all(|name| name.ends_with(".mycompany.com"));
        let domain = if one { "mycompany.com" } else { "*" };
        let cluster = Cluster::start_below(conf, at, Some(domain), &changes).await;
        for n in (1..=2).filter(|_| straight) {
            let name = format!("push{n}.mycompany.com");
            let leaf = certs.leaf(&format!("node{n}"), &[&name], Key::Ecdsa);
            let public = cluster.block.at(&format!("200.0.0.{n}:443"));
            cluster.nodes[n - 1].also(public, Some(leaf.context()));
        }
        let cluster = Cluster {
            server: format!("https://push.mycompany.com:{}", port(443)),
            ca: Some(certs.ca_file()),
            own_vips: straight || files.len() > 2,
            // A request that goes straight to a node carries no X-Forwarded-For.
            addresses: !straight,
            ..cluster
        };
        Offload {
            cluster,
            _certs: certs,
        }
    }

    /// The same for clients that start at `push` of another domain.
    pub fn of(mut self, domain: &str) -> Offload {
        self.cluster.server = format!("https://push.{domain}:{}", port(443));
        self
    }

    /// Sessions stay; S reaches `push`, and CR over HTTP reaches `push1` or `push2`.
    pub async fn sessions_stay(&self) {
        self.cluster.sessions_stay().await;
        let (s, cr) = self.cluster.hosts();
        assert!(s.iter().all(|host| host.starts_with("push.")), "{s:?}");
        let pinned = |host: &String| host.starts_with("push1.") || host.starts_with("push2.");
        assert!(cr.iter().any(pinned), "{cr:?}");
    }

    /// Asserts that no client left the domain it started in.
    pub fn hosts_are_below(&self, domain: &str) {
        let (s, cr) = self.cluster.hosts();
        let strays = |host: &&String| !host.contains(domain);
        assert_eq!(s.iter().chain(&cr).find(strays), None);
    }
}

/// Issues a certificate for each of `files`, with the names it covers. Returns the changes for a conf file
/// that names `FILE.pem` and `FILE.key`.
pub fn issue(certs: &Certs, files: &[(&str, &[&str])]) -> Vec<(String, String)> {
    let both = files.iter().map(|(file, names)| {
        let leaf = certs.leaf(file, names, Key::Ecdsa);
        [("pem", leaf.chain), ("key", leaf.key)]
            .map(|(end, path)| (format!("{file}.{end}"), path.display().to_string()))
    });
    both.flatten().collect()
}
