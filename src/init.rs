//! Prints the configuration of a deployment option with the user's own addresses.
//!
//! In: an option's name; VIPs, nodes and certificates in the order of the option's file. Out: its file of
//! `conf/`, with comments and table, or an error about what does not fit.
//! Source: Lightstreamer clustering §2, §3, §4, §6 (the tables of addresses); Diffusion load balancers.

mod address;

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

pub use address::{Address, NodeAddress};

use crate::config::HostName;
use crate::config::error::nearest;

/// Declares the options, one a line: a name, and its file in `conf/`.
macro_rules! options {
    ($($name:literal => $file:literal),+ $(,)?) => {
        /// Every option: its name and the text of its file.
        pub const OPTIONS: &[(&str, &str)] =
            &[$(($name, include_str!(concat!("../conf/", $file)))),+];
    };
}

options! {
    "1.A.1" => "option-1.A.1.yaml",
    "1.A.1-layer4" => "option-1.A.1-layer4.yaml",
    "1.A.2" => "option-1.A.2.yaml",
    "1.B.1" => "option-1.B.1.yaml",
    "1.B.1-vip" => "option-1.B.1-vip.yaml",
    "1.B.2" => "option-1.B.2.yaml",
    "2.A.1" => "option-2.A.1.yaml",
    "2.A.1-multihosting" => "option-2.A.1-multihosting.yaml",
    "2.A.2" => "option-2.A.2.yaml",
    "2.A.2-multihosting" => "option-2.A.2-multihosting.yaml",
    "2.B.1.1" => "option-2.B.1.1.yaml",
    "2.B.1.1-multihosting" => "option-2.B.1.1-multihosting.yaml",
    "2.B.1.2" => "option-2.B.1.2.yaml",
    "2.B.1.3" => "option-2.B.1.3.yaml",
    "2.B.1.3-multihosting" => "option-2.B.1.3-multihosting.yaml",
    "2.B.1.4" => "option-2.B.1.4.yaml",
    "2.B.2.1" => "option-2.B.2.1.yaml",
    "2.B.2.1-multihosting" => "option-2.B.2.1-multihosting.yaml",
    "2.B.2.2" => "option-2.B.2.2.yaml",
    "2.B.2.3" => "option-2.B.2.3.yaml",
    "2.B.2.3-layer4" => "option-2.B.2.3-layer4.yaml",
    "2.B.2.3-multihosting" => "option-2.B.2.3-multihosting.yaml",
    "2.B.2.4" => "option-2.B.2.4.yaml",
    "expiry" => "expiry.yaml",
    "rebalance" => "rebalance.yaml",
    "direct" => "direct.yaml",
    "diffusion" => "diffusion.yaml",
}

/// Other names that the guide has for an option: its sections on several domains, and §4 to §6.
const ALIASES: &[(&str, &str)] = &[
    ("2.A.1.1", "2.A.1-multihosting"),
    ("2.B.1.1.1", "2.B.1.1-multihosting"),
    ("2.B.2.1.1", "2.B.2.1-multihosting"),
    ("4", "expiry"),
    ("5", "expiry"),
    ("5.1", "expiry"),
    ("6", "direct"),
];

/// Domain of the guides' examples, which `--domain` replaces.
const DOMAIN: &str = "mycompany.com";

/// Blocks that every edge should have, at the end of each written file.
pub(crate) const OBSERVED: &str = "
# Metrics, health, orders and the dashboard: `pushgate top -c FILE`.
admin: { bind: 127.0.0.1:9900 }

# One JSON line at the end of each flow.
log: { access: stdout }
";

/// What replaces the option's own addresses and certificates, each in the order of its file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Own {
    /// Addresses that clients reach.
    pub vips: Vec<Address>,
    /// Addresses of the nodes.
    pub nodes: Vec<NodeAddress>,
    /// PEM chains; each key file is beside its chain, with the ending `.key`.
    pub certificates: Vec<PathBuf>,
    /// Domain in place of `mycompany.com`.
    pub domain: Option<HostName>,
}

/// Why an option cannot be printed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum InitError {
    /// No option has this name.
    #[error("unknown option `{option}`; {}", hint(nearest))]
    Unknown {
        /// The requested name.
        option: String,
        /// The nearest existing name.
        nearest: Option<String>,
    },
    /// The number given is not the number that the option has.
    #[error("{what}: {given} given, {}", has(own))]
    Count {
        /// `--vip`, `--node` or `--cert`.
        what: &'static str,
        /// How many were given.
        given: usize,
        /// The option's own values, in order.
        own: Vec<String>,
    },
    /// A port was given for an address that has several ports.
    #[error("{address} has several ports in this option: give its address without a port")]
    Ports {
        /// The option's address.
        address: Ipv4Addr,
    },
}

/// Returns the end of the message about an unknown option.
fn hint(nearest: &Option<String>) -> String {
    match nearest {
        Some(name) => format!("did you mean `{name}`?"),
        None => "`pushgate init` lists all options".to_owned(),
    }
}

/// Describes the option's own values.
fn has(own: &[String]) -> String {
    match own {
        [] => "but this option takes none".to_owned(),
        own => format!(
            "but this option takes {}, for {}",
            own.len(),
            own.join(", ")
        ),
    }
}

/// Lists the options, one a line, each with the first words of its file.
pub fn list() -> String {
    let width = OPTIONS.iter().map(|(name, _)| name.len()).max();
    let width = width.unwrap_or_default();
    let line = |(name, text): &(&str, &str)| {
        let own = ALIASES.iter().filter(|(_, option)| option == name);
        let own: Vec<_> = own.map(|(alias, _)| *alias).collect();
        let also = match own.is_empty() {
            true => String::new(),
            false => format!(" (also {})", own.join(", ")),
        };
        format!("{name:width$}  {}{also}\n", title(text))
    };
    OPTIONS.iter().map(line).collect()
}

/// Returns the file of `option` with `own` in place of its addresses and certificates. Keeps the option's own
/// values of a kind that is not given at all.
///
/// Errors: an unknown option, a wrong number of values, a port for an address with several ports.
pub fn fill(option: &str, own: &Own) -> Result<String, InitError> {
    let text = find(option)?;
    let mut addresses = Vec::new();
    let vips = own.vips.iter().map(|vip| NodeAddress::Ip(*vip)).collect();
    for (what, given, key) in [
        ("--vip", &vips, "bind:"),
        ("--node", &own.nodes, "address:"),
    ] {
        let slots = slots(text, key);
        counted(
            what,
            given.len(),
            slots.iter().map(|s| s.to_string()).collect(),
        )?;
        for (slot, address) in slots.into_iter().zip(given) {
            if address.port().is_some() && ports(text, slot) > 1 {
                return Err(InitError::Ports { address: slot });
            }
            addresses.push((slot, address.clone()));
        }
    }
    let chains: Vec<&str> = values(text, "chain:").collect();
    let names = chains.iter().map(|c| (*c).to_owned()).collect();
    counted("--cert", own.certificates.len(), names)?;
    let mut out: String = text
        .split_inclusive('\n')
        .map(|line| readdress(line, &addresses))
        .collect();
    let keys: Vec<&str> = values(text, "key:").collect();
    for (i, file) in own.certificates.iter().enumerate() {
        let (chain, key) = (quoted(file), quoted(&file.with_extension("key")));
        out = out.replace(
            &format!("chain: {}, key: {}", chains[i], keys[i]),
            &format!("chain: {chain}, key: {key}"),
        );
    }
    if let Some(domain) = &own.domain {
        out = out.replace(DOMAIN, domain.bare());
    }
    Ok(out + OBSERVED)
}

fn find(option: &str) -> Result<&'static str, InitError> {
    let plain = option.trim_start_matches("option-");
    let plain = plain.trim_start_matches('§').to_ascii_lowercase();
    let alias = ALIASES
        .iter()
        .find(|(alias, _)| alias.to_ascii_lowercase() == plain);
    let plain = alias.map_or(plain, |(_, name)| name.to_ascii_lowercase());
    let found = OPTIONS
        .iter()
        .find(|(name, _)| name.to_ascii_lowercase() == plain);
    found
        .map(|(_, text)| *text)
        .ok_or_else(|| InitError::Unknown {
            option: option.to_owned(),
            nearest: nearest(option, OPTIONS.iter().map(|(name, _)| *name)),
        })
}

/// Returns the first comment of a file, up to its source.
fn title(text: &str) -> &str {
    let line = text.lines().next().unwrap_or_default();
    let line = line.trim_start_matches(['#', ' ']);
    let end = ["Lightstreamer clustering", "Diffusion load"];
    let end = end.iter().filter_map(|mark| line.find(mark)).min();
    line[..end.unwrap_or(line.len())].trim_end_matches([' ', '.'])
}

fn counted(what: &'static str, given: usize, own: Vec<String>) -> Result<(), InitError> {
    match given == 0 || given == own.len() {
        true => Ok(()),
        false => Err(InitError::Count { what, given, own }),
    }
}

/// Returns the distinct addresses after `key` outside comments, in order.
fn slots(text: &str, key: &str) -> Vec<Ipv4Addr> {
    let mut found = Vec::new();
    for line in text.lines().filter(|line| !is_comment(line)) {
        let Some(at) = line.find(key) else { continue };
        for (_, address) in addresses(&line[at..]) {
            if !found.contains(&address) {
                found.push(address);
            }
        }
    }
    found
}

/// Returns how many ports `address` has in `text`.
fn ports(text: &str, address: Ipv4Addr) -> usize {
    let mut found = std::collections::BTreeSet::new();
    for line in text.lines() {
        for (range, _) in addresses(line).filter(|(_, a)| *a == address) {
            found.extend(port_after(&line[range.end..]));
        }
    }
    found.len()
}

/// Returns the words after each `key`, outside comments.
fn values<'a>(text: &'a str, key: &'a str) -> impl Iterator<Item = &'a str> {
    let lines = text.lines().filter(|line| !is_comment(line));
    lines
        .flat_map(move |line| {
            line.match_indices(key)
                .map(move |(i, k)| &line[i + k.len()..])
        })
        .map(|rest| rest.trim_start())
        .map(|rest| &rest[..rest.find([',', ' ', '}']).unwrap_or(rest.len())])
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with('#')
}

/// Returns the IPv4 addresses of a line with their positions.
fn addresses(line: &str) -> impl Iterator<Item = (std::ops::Range<usize>, Ipv4Addr)> {
    let mut rest = 0;
    std::iter::from_fn(move || {
        while let Some(start) = line[rest..].find(|c: char| c.is_ascii_digit()) {
            let start = rest + start;
            let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
            let end = line[start..].find(|c| !word(c));
            let end = end.map_or(line.len(), |n| start + n);
            rest = end;
            let dotted = line[start..end].trim_end_matches('.');
            if let Ok(address) = dotted.parse() {
                return Some((start..start + dotted.len(), address));
            }
        }
        None
    })
}

fn port_after(rest: &str) -> Option<u16> {
    let digits = rest.strip_prefix(':')?;
    let end = digits.find(|c: char| !c.is_ascii_digit());
    digits[..end.unwrap_or(digits.len())].parse().ok()
}

/// Returns a line with each address replaced. Outside comments it quotes an address that YAML would misread.
fn readdress(line: &str, to: &[(Ipv4Addr, NodeAddress)]) -> String {
    let (mut out, mut done) = (String::with_capacity(line.len()), 0);
    for (range, found) in addresses(line) {
        let Some((_, address)) = to.iter().find(|(slot, _)| *slot == found) else {
            continue;
        };
        out.push_str(&line[done..range.start]);
        let port = port_after(&line[range.end..]);
        done = range.end + port.map_or(0, |p| p.to_string().len() + 1);
        let text = match port {
            Some(port) => address.with_port(port),
            None => address.host(),
        };
        match address.is_ipv6() && !is_comment(line) {
            true => out.push_str(&format!("\"{text}\"")),
            false => out.push_str(&text),
        }
    }
    out + &line[done..]
}

/// Quotes a path so that YAML reads it back.
pub(crate) fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '/' | '-' | '_');
    match text.chars().all(plain) && text.starts_with(|c: char| c != '-') {
        true => text,
        false => format!("'{}'", text.replace('\'', "''")),
    }
}

#[cfg(test)]
mod tests;
