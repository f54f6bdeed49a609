//! Checks the block `tls:` of a node, and of the nodes that DNS finds.
//!
//! In: the block and its path. Out: faults.

use pushgate_plugins::host::to_ascii;

use super::checker::Check;
use crate::config::NodeTls;
use crate::config::error::echo;
use crate::config::tree::Step;
use crate::credentials::{Crls, authorities_of};

pub(super) fn tls_is_sound(check: &mut Check<'_>, block: &[Step], tls: &NodeTls) {
    let at = |key: &'static str| [block, &[Step::from(key)]].concat();
    if let Some(file) = &tls.ca_file {
        let authorities = authorities_of(&check.dir.join(file));
        match &authorities {
            Err(fault) => drop(check.fault(&at("ca_file"), fault.to_string())),
            Ok(_) if !tls.verify => {
                let expected = "`verify: true`, or no `ca_file`";
                check.on_key(&at("ca_file"), "an authority nobody asks", expected);
            }
            Ok(_) => {}
        }
        if let (Some(lists), Ok(authorities)) = (&tls.crl_file, authorities)
            && let Err(fault) = Crls::open(&check.dir.join(lists), &authorities)
        {
            check.fault(&at("crl_file"), fault.to_string());
        }
    } else if tls.crl_file.is_some() {
        let expected = "`ca_file` beside it, with the authorities of the lists";
        check.on_key(&at("crl_file"), "its authorities are not known", expected);
    }
    server_name(check, &at("server_name"), tls.server_name.as_deref());
    if let Some(own) = &tls.client_certificate
        && !check.names.certificates.contains(own)
    {
        let known = &check.names.certificates;
        check.unknown(&at("client_certificate"), "certificate", own, known);
    }
}

pub(super) fn server_name(check: &mut Check<'_>, at: &[Step], name: Option<&str>) {
    let Some(name) = name else { return };
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | ':');
    let ascii = to_ascii(name);
    if ascii.trim_end_matches('.').is_empty() || !ascii.chars().all(legal) {
        let found = format!("found `{}`", echo(name));
        check.expect(at, found, "a host name or an IP address");
    }
}
