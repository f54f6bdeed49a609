//! Command `quick`: an edge without a file.
//!
//! In: nodes, and what the edge is to do with them. Out: the file that they stand for, on standard output, and
//! then the edge that runs from it.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::config::{Address, Config};
use crate::init::quoted;
use crate::observe::service_log;

/// Port without TLS, and with it. Lower ones need rights that a first try does not have.
const PORTS: [u16; 2] = [8080, 8443];

/// An edge without a file.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct Quick {
    /// Address of a push server, such as `10.0.0.1:8080` or `push1.internal:8080`. Repeatable.
    #[arg(long = "node", value_name = "ADDRESS", required = true, value_parser = address)]
    nodes: Vec<Address>,
    /// Stick each client to its server by a cookie.
    #[arg(long)]
    cookie: bool,
    /// End TLS here, with this PEM chain and its key.
    #[arg(long, value_name = "CERT,KEY", value_parser = pair)]
    tls: Option<(PathBuf, PathBuf)>,
    /// Port that clients reach, by default 8080, or 8443 with `--tls`; 0: a free one.
    #[arg(long, value_name = "N")]
    port: Option<u16>,
    /// Address of the admin endpoint, such as `127.0.0.1:9900`; by default none.
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<SocketAddr>,
    /// Print the file and exit.
    #[arg(long)]
    print: bool,
}

fn address(text: &str) -> Result<Address, String> {
    let expected = "expected an address or host name with its port";
    text.parse().map_err(|()| expected.to_owned())
}

fn pair(text: &str) -> Result<(PathBuf, PathBuf), String> {
    match text.split(',').collect::<Vec<_>>().as_slice() {
        [chain, key] if !chain.is_empty() && !key.is_empty() => {
            let absolute = |file: &str| std::path::absolute(file).map_err(|e| e.to_string());
            Ok((absolute(chain)?, absolute(key)?))
        }
        _ => Err("expected two files, such as `edge.pem,edge.key`".to_owned()),
    }
}

impl Quick {
    /// Prints the file and runs it.
    ///
    /// Errors: a fault in what was given; those of [`crate::server::run`].
    pub fn run(&self) -> Result<(), Box<dyn std::error::Error>> {
        let text = self.file(has_ipv6());
        let config = Config::parse(&text, "quick", Path::new("/"))?;
        let mut out = std::io::stdout();
        out.write_all(text.as_bytes())?;
        out.flush()?;
        if self.print {
            return Ok(());
        }
        service_log::init("info", config.log.service.clone());
        service_log::start()?;
        crate::server::run(config, crate::server::Options::default())
    }

    /// Returns the file. A free port is of IPv4 only, because IPv6 would get another one.
    fn file(&self, ipv6: bool) -> String {
        let mut text = "# Written by `pushgate quick`.\n".to_owned();
        let mut line = |words: std::fmt::Arguments<'_>| {
            writeln!(text, "{words}").expect("a String takes every text");
        };
        if let Some(admin) = self.admin {
            line(format_args!("admin: {{ bind: \"{admin}\" }}"));
        }
        line(format_args!("nodes:"));
        for (i, address) in self.nodes.iter().enumerate() {
            line(format_args!(
                "  node{}: {{ address: \"{address}\" }}",
                i + 1
            ));
        }
        let names: Vec<String> = (1..=self.nodes.len()).map(|i| format!("node{i}")).collect();
        line(format_args!(
            "pools:\n  push:\n    nodes: [{}]",
            names.join(", ")
        ));
        line(format_args!("    health: {{ tcp: {{}} }}"));
        if let Some((chain, key)) = &self.tls {
            let (chain, key) = (quoted(chain), quoted(key));
            line(format_args!(
                "certificates:\n  edge: {{ chain: {chain}, key: {key} }}"
            ));
        }
        let port = self.port.unwrap_or(PORTS[usize::from(self.tls.is_some())]);
        line(format_args!("listeners:\n  - name: push"));
        match ipv6 && port > 0 {
            true => line(format_args!("    bind: [0.0.0.0:{port}, \"[::]:{port}\"]")),
            false => line(format_args!("    bind: [0.0.0.0:{port}]")),
        }
        line(format_args!("    mode: http"));
        if self.tls.is_some() {
            line(format_args!("    tls: {{ certificates: [edge] }}"));
        }
        line(format_args!("    to: push\n    plugins:"));
        if self.cookie {
            line(format_args!("      - sticky_cookie: {{}}"));
        }
        line(format_args!("      - forwarded: {{}}"));
        text
    }
}

/// Whether this machine has IPv6.
fn has_ipv6() -> bool {
    std::net::TcpListener::bind((std::net::Ipv6Addr::LOCALHOST, 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::config::Mode;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        quick: Quick,
    }

    fn quick(line: &str) -> Result<Quick, String> {
        let words = std::iter::once("quick").chain(line.split_whitespace());
        Line::try_parse_from(words)
            .map(|l| l.quick)
            .map_err(|e| e.to_string())
    }

    /// Aim: the file says what the command line said, and is sound. Fails if an option is lost, or if a value
    /// is written so that YAML reads another.
    #[test]
    fn the_file_says_what_was_given() {
        let given = quick("--node [::1]:1 --node a.internal:80 --cookie --port 9 --admin [::1]:0");
        let text = given.expect("a good line").file(true);
        let config = Config::parse(&text, "f", Path::new("/")).unwrap_or_else(|e| panic!("{e}"));
        assert!(config.warnings.is_empty(), "{:?}", config.warnings);
        let nodes: Vec<_> = config
            .nodes
            .values()
            .map(|n| n.address.to_string())
            .collect();
        assert_eq!(nodes, ["[::1]:1", "a.internal:80"]);
        assert_eq!(config.pools["push"].nodes, ["node1", "node2"]);
        let listener = &config.listeners[0];
        let binds: Vec<_> = listener.bind.iter().map(ToString::to_string).collect();
        assert_eq!(
            (binds.join(" "), listener.mode),
            ("0.0.0.0:9 [::]:9".into(), Mode::Http)
        );
        let words: Vec<_> = listener.plugins.iter().map(|p| p.as_str()).collect();
        assert_eq!(words, ["sticky_cookie", "forwarded"]);
        assert_eq!(config.admin.map(|a| a.bind), "[::1]:0".parse().ok());
    }

    /// Aim: TLS has its own port, and its files are found from any folder. Fails if paths stay relative.
    #[test]
    fn tls_names_its_files_by_full_paths() {
        let text = quick("--node a:80 --tls e.pem,e.key")
            .expect("a good line")
            .file(false);
        assert!(text.contains("0.0.0.0:8443"), "{text}");
        let here = std::env::current_dir().expect("a folder");
        for file in ["e.pem", "e.key"] {
            let path = here.join(file).display().to_string();
            assert!(text.contains(&path), "{text}");
        }
    }

    #[test]
    fn wrong_values_are_refused() {
        for (line, expected) in [
            ("", "--node <ADDRESS>"),
            ("--node a", "an address or host name with its port"),
            ("--node a:80 --tls one", "two files"),
            ("--node a:80 --port 70000", "--port"),
        ] {
            let said = quick(line).expect_err(line);
            assert!(said.contains(expected), "{line}: {said}");
        }
    }
}
