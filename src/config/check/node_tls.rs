//! Checks the block `tls:` of a node, and of the nodes that DNS finds.
//!
//! In: the block and its path. Out: faults.

use super::checker::Check;
use crate::config::NodeTls;
use crate::config::error::echo;
use crate::config::tree::Step;
use crate::credentials::chain_of;

pub(super) fn tls_is_sound(check: &mut Check<'_>, block: &[Step], tls: &NodeTls) {
    let at = |key: &'static str| [block, &[Step::from(key)]].concat();
    if let Some(file) = &tls.ca_file {
        if let Err(fault) = chain_of(&check.dir.join(file)) {
            check.fault(&at("ca_file"), fault.to_string());
        } else if !tls.verify {
            let expected = "`verify: true`, or no `ca_file`";
            check.on_key(&at("ca_file"), "an authority nobody asks", expected);
        }
    }
    if let Some(server) = &tls.server_name {
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | ':');
        if server.is_empty() || !server.chars().all(legal) {
            let found = format!("found `{}`", echo(server));
            check.expect(&at("server_name"), found, "a host name or an IP address");
        }
    }
    if let Some(own) = &tls.client_certificate
        && !check.names.certificates.contains(own)
    {
        let known = &check.names.certificates;
        check.unknown(&at("client_certificate"), "certificate", own, known);
    }
}
