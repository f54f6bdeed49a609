//! Writes an edge's configuration for push servers that are already configured.
//!
//! In: the contents of their files, and the addresses that only the user knows. Out: YAML whose heading names
//! the option and what the user must still fill in.
//! Source: Lightstreamer clustering §2, §3.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use super::certificates::{Entry, entry};
use super::healthcheck;
use super::import_output::ImportOutput;
use super::push_server::{Link, PushServer, Socket, refused};
use crate::init::{Address, NodeAddress, OBSERVED, Own, quoted};

/// The option of the guide that the files amount to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// HTTP, no link: 1.A.2.
    Cookie,
    /// HTTP, a host name for each: 1.B.1.
    Hosts,
    /// TLS at the nodes, no link: 2.A.1.
    Address,
    /// TLS at the nodes, a name for each: 2.B.1.1, or 2.B.2.1 with a second port.
    Vips,
    /// TLS at the nodes, CR bypasses the edge: 2.B.2.2.
    Direct,
    /// TLS at the edge, CR bypasses the edge: 2.B.1.4, 2.B.2.4.
    Offload,
}

/// A server's sockets for S and for CR.
struct Roles<'a> {
    s: &'a Socket,
    cr: &'a Socket,
}

/// Writes the configuration. `own.vips`: the balanced address, then, if TLS passes through, one for each
/// server. `own.nodes`: the servers' addresses if their files name no interface. `own.domain`: that of servers
/// that name only their machine. A missing address becomes the guide's, with a line that says so.
///
/// Errors: files that contradict each other or match no option.
pub fn write(servers: &[PushServer], own: &Own) -> Result<ImportOutput, String> {
    let mut servers = servers.to_vec();
    if let Some(domain) = &own.domain {
        servers
            .iter_mut()
            .for_each(|server| server.name_in(domain.bare()));
    }
    let servers = servers.as_slice();
    let roles = servers
        .iter()
        .map(|server| roles(server, servers))
        .collect::<Result<Vec<_>, _>>()?;
    let option = option(servers, &roles)?;
    distinct_links(servers)?;
    let certificate = (option == Kind::Offload).then(|| entry(servers));
    let secret = certificate.as_ref().and_then(|c| c.secret.clone());
    let out = Out {
        servers,
        roles,
        option,
        certificate,
        vips: &own.vips,
        nodes: &own.nodes,
    };
    Ok(ImportOutput {
        yaml: out.text(),
        secrets: secret.into_iter().collect(),
    })
}

/// Distinguishes a server's socket for S from that for CR. The socket for S has the keystore that all servers
/// have, or none.
fn roles<'a>(server: &'a PushServer, all: &[PushServer]) -> Result<Roles<'a>, String> {
    let path = server.path.display();
    let shared = |socket: &Socket| {
        let mut others = all.iter().filter(|other| other.path != server.path);
        others.all(|other| other.sockets.iter().any(|o| o.kind() == socket.kind()))
    };
    match (&server.sockets[..], &server.link) {
        ([one], _) => Ok(Roles { s: one, cr: one }),
        ([a, b], Some(Link::Address(..))) => match (a.tls, b.tls) {
            (false, true) => Ok(Roles { s: a, cr: b }),
            (true, false) => Ok(Roles { s: b, cr: a }),
            _ if shared(a) && !shared(b) => Ok(Roles { s: a, cr: b }),
            _ if shared(b) && !shared(a) => Ok(Roles { s: b, cr: a }),
            _ => Err(format!(
                "{path}: cannot tell its socket for S from that for CR: S is expected on the one whose \
                 keystore all servers have"
            )),
        },
        (sockets, _) => Err(format!(
            "{path}: {} sockets for several domains: start from `pushgate init 2.A.1-multihosting`, \
             `2.B.1.1-multihosting` or `2.B.2.1-multihosting`",
            sockets.len()
        )),
    }
}

fn option(servers: &[PushServer], roles: &[Roles<'_>]) -> Result<Kind, String> {
    let kind = |server: &PushServer, roles: &Roles<'_>| match (
        &server.link,
        roles.s.tls,
        roles.cr.tls,
    ) {
        (Some(Link::Machine(_)), ..) => Err(format!(
            "{}: <control_link_machine_name> needs the domain, which the file does not name: give \
             it by --domain; for several domains start from `pushgate init 2.B.1.1-multihosting`",
            server.path.display()
        )),
        (None, false, _) => Ok(Kind::Cookie),
        (None, true, _) => Ok(Kind::Address),
        (Some(_), false, true) => Ok(Kind::Offload),
        (Some(_), false, false) => Ok(Kind::Hosts),
        (Some(_), true, _) if roles.s.interface != roles.cr.interface => Ok(Kind::Direct),
        (Some(_), true, _) => Ok(Kind::Vips),
    };
    let mut kinds = Vec::new();
    for (server, roles) in servers.iter().zip(roles) {
        kinds.push(kind(server, roles)?);
    }
    let first = *kinds.first().ok_or("no file given")?;
    match kinds.iter().position(|kind| *kind != first) {
        None => Ok(first),
        Some(i) => Err(format!(
            "{} and {} are configured for different options: compare their sockets and \
             <control_link_address>",
            servers[0].path.display(),
            servers[i].path.display()
        )),
    }
}

/// Checks that no two servers have the same control link: each would get the other's clients.
pub(super) fn distinct_links(servers: &[PushServer]) -> Result<(), String> {
    let mut seen: Vec<&PushServer> = Vec::new();
    for server in servers.iter().filter(|s| s.link.is_some()) {
        if let Some(twin) = seen.iter().find(|s| s.link == server.link) {
            return Err(format!(
                "{}: the same control link as {}: CR would reach the wrong server",
                server.path.display(),
                twin.path.display()
            ));
        }
        seen.push(server);
    }
    Ok(())
}

struct Out<'a> {
    servers: &'a [PushServer],
    roles: Vec<Roles<'a>>,
    option: Kind,
    /// The edge's own certificate, if TLS ends at the edge.
    certificate: Option<Entry>,
    vips: &'a [Address],
    nodes: &'a [NodeAddress],
}

impl Out<'_> {
    fn text(&self) -> String {
        let mut out = self.heading();
        let names: Vec<String> = (1..=self.servers.len()).map(|n| format!("ls{n}")).collect();
        out += "\nnodes:\n";
        for (i, name) in names.iter().enumerate() {
            let address = self.node(i, self.roles[i].s);
            // Writing to a String cannot fail.
            let _ = writeln!(out, "  {name}: {{ address: {address} }}");
        }
        let pins = self.pins(&names);
        for (i, name) in names
            .iter()
            .enumerate()
            .filter(|(i, _)| self.second_port(*i))
        {
            let address = self.node(i, self.roles[i].cr);
            let check = "health: { tcp: {} }";
            let _ = writeln!(
                out,
                "  {name}-cr: {{ address: {address}, server: {name}, {check} }}"
            );
        }
        let health = healthcheck::check(self.servers, self.roles[0].s.tls);
        let _ = write!(
            out,
            "\npools:\n  push:\n    nodes: [{}]\n    health: {{ {health} }}\n",
            names.join(", ")
        );
        if let Some(certificate) = &self.certificate {
            out += &format!("\ncertificates:\n{}", certificate.line);
        }
        let mode = if self.roles[0].s.tls { "tcp" } else { "http" };
        let _ = write!(
            out,
            "\nlisteners:\n  - name: push\n    bind: [{}]\n    mode: {mode}\n",
            self.bind().join(", ")
        );
        if let Some(certificate) = &self.certificate {
            out += &format!("    tls: {{ certificates: [{}] }}\n", certificate.name);
        }
        out + "    to: push\n" + &pins + OBSERVED
    }

    /// Writes what the files are, and what they leave open.
    fn heading(&self) -> String {
        let option = match self.option {
            Kind::Cookie => "1.A.2",
            Kind::Hosts => "1.B.1; where CR goes straight to the servers, 1.B.2: remove host_route",
            Kind::Address => "2.A.1",
            Kind::Vips if self.second_port(0) => "2.B.2.1",
            Kind::Vips => {
                "2.B.1.1; where CR goes straight to the servers, 2.B.1.2: remove vip_route"
            }
            Kind::Direct => "2.B.2.2",
            Kind::Offload => "2.B.1.4 or 2.B.2.4",
        };
        let mut out = format!("# Written by `pushgate import`. Option {option}.\n#\n");
        for (server, roles) in self.servers.iter().zip(&self.roles) {
            let _ = writeln!(out, "# {}: {}", server.path.display(), told(server, roles));
        }
        let unknown = (0..self.servers.len()).any(|i| self.is_guess(i));
        if unknown {
            out += "# The files name no address of a server: 10.0.0.N below is a guess (--node sets it).\n";
        }
        if self.vips.len() < self.bind().len() {
            out += "# The files do not name the addresses clients reach: 200.0.0.N is a guess (--vip sets it).\n";
        }
        out += healthcheck::note(self.servers, self.roles[0].s.tls);
        let refused = self.servers.iter().zip(&self.roles).filter_map(|(s, r)| {
            let Some(Link::Address(told, _)) = &s.link else {
                return None;
            };
            refused(s, &[r.cr], told)
        });
        let notes = self.certificate.iter().flat_map(|c| c.notes.clone());
        for note in refused.chain(notes) {
            let _ = writeln!(out, "# {note}");
        }
        out
    }

    /// Writes the plugins of the listener.
    fn pins(&self, names: &[String]) -> String {
        let forwarded = "      - forwarded: {}\n";
        match self.option {
            Kind::Cookie => {
                format!(
                    "    plugins:\n      - sticky_cookie: {{ name: PUSHGATE, max_age: 8h }}\n{forwarded}"
                )
            }
            Kind::Address => "    plugins:\n      - sticky_ip: {}\n".to_owned(),
            Kind::Hosts => {
                let pin = |(server, name): (&PushServer, &String)| match &server.link {
                    Some(Link::Address(host, _)) => {
                        let host = quoted(Path::new(host));
                        Some(format!("            {host}: {name}\n"))
                    }
                    _ => None,
                };
                let pins: String = self.servers.iter().zip(names).filter_map(pin).collect();
                format!("    plugins:\n      - host_route:\n          hosts:\n{pins}{forwarded}")
            }
            Kind::Vips => {
                let pins: String = (0..names.len())
                    .map(|i| {
                        let own = if self.second_port(i) { "-cr" } else { "" };
                        format!(
                            "            {}: {}{own}\n",
                            key(self.vip(i + 1).ip()),
                            names[i]
                        )
                    })
                    .collect();
                format!("    plugins:\n      - vip_route:\n          vips:\n{pins}")
            }
            Kind::Direct => String::new(),
            Kind::Offload => format!("    plugins:\n{forwarded}"),
        }
    }

    fn bind(&self) -> Vec<String> {
        let last = if self.option == Kind::Vips {
            self.servers.len()
        } else {
            0
        };
        (0..=last).map(|i| yaml(self.vip(i))).collect()
    }

    /// Returns the VIP with index `i`: 0 is the balanced one, N that of server N.
    fn vip(&self, i: usize) -> SocketAddr {
        let tls = self.roles[0].s.tls || self.option == Kind::Offload;
        let port = if tls { 443 } else { 80 };
        let guess = Ipv4Addr::new(200, 0, 0, if i == 0 { 10 } else { last_byte(i) });
        match self.vips.get(i) {
            Some(own) => SocketAddr::new(own.ip, own.port.unwrap_or(port)),
            None => (guess, port).into(),
        }
    }

    /// Returns the address of server `i`, as the file has it.
    fn node(&self, i: usize, socket: &Socket) -> String {
        let own = self.nodes.get(i);
        let port = own.and_then(NodeAddress::port).unwrap_or(socket.port);
        let guess = Ipv4Addr::new(10, 0, 0, last_byte(i + 1));
        match (socket.interface, own) {
            (Some(ip), _) => yaml(SocketAddr::new(ip, port)),
            (None, Some(NodeAddress::Ip(own))) => yaml(SocketAddr::new(own.ip, port)),
            (None, Some(name)) => name.with_port(port),
            (None, None) => yaml((guess, port).into()),
        }
    }

    fn is_guess(&self, i: usize) -> bool {
        self.roles[i].s.interface.is_none() && self.nodes.get(i).is_none()
    }

    /// Returns whether CR goes through the edge to a socket of its own.
    fn second_port(&self, i: usize) -> bool {
        let roles = &self.roles[i];
        self.option == Kind::Vips && roles.s != roles.cr
    }
}

/// Writes one line about a server.
fn told(server: &PushServer, roles: &Roles<'_>) -> String {
    let keystore = |s: &Socket| match &s.keystore {
        Some(k) => match k.names(&server.path) {
            Ok(names) => format!(" ({} for {})", k.file, names.join(", ")),
            Err(_) => format!(" ({})", k.file),
        },
        None => String::new(),
    };
    let ports: BTreeSet<String> = server
        .sockets
        .iter()
        .map(|s| {
            let word = if s.tls { "https" } else { "http" };
            format!("{word} {}{}", s.port, keystore(s))
        })
        .collect();
    let ports = ports.into_iter().collect::<Vec<_>>().join(", ");
    let cr = if roles.s == roles.cr {
        ""
    } else {
        " (CR has its own socket)"
    };
    match &server.link {
        Some(Link::Address(host, None)) => format!("{ports}{cr}; CR to {host}"),
        Some(Link::Address(host, Some(port))) => format!("{ports}{cr}; CR to {host}:{port}"),
        _ => format!("{ports}; no control link"),
    }
}

/// Returns the last byte of a guessed address. Guesses differ up to server 255.
fn last_byte(i: usize) -> u8 {
    u8::try_from(i).unwrap_or(u8::MAX)
}

/// Writes an address so that YAML reads it back.
fn yaml(address: SocketAddr) -> String {
    match address {
        SocketAddr::V4(_) => address.to_string(),
        SocketAddr::V6(_) => format!("\"{address}\""),
    }
}

fn key(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(_) => ip.to_string(),
        IpAddr::V6(_) => format!("\"{ip}\""),
    }
}
