//! Settings that are legal alone and harm beside each other: each warning with its place.

use std::path::Path;

use super::Config;

/// Returns the warnings of a listener with these keys, a pool with this check.
fn warnings(listener: &str, health: &str) -> Vec<String> {
    let text = format!(
        "nodes:\n  n: {{ address: 127.0.0.1:2, server: m }}\n  m: {{ address: 127.0.0.1:3, health: {{ tcp: {{}} }} }}\n\
         pools:\n  p:\n    nodes: [n]\n    health: {health}\n\
         listeners:\n  - name: a\n    bind: [127.0.0.1:80, \"[::]:81\"]\n    mode: http\n    to: p\n{listener}"
    );
    let config = Config::parse(&text, "f", Path::new("")).unwrap_or_else(|e| panic!("{e}"));
    config.warnings.iter().map(ToString::to_string).collect()
}

/// Aim: each trap is told with its place, and only where it is one. Source: issue 14 §8. Fails if a trap is
/// looked for in another block, or if a proxy in front does not count.
#[test]
fn each_trap_is_told_with_its_place() {
    let cookie = "    plugins:\n      - sticky_cookie: { secure: true }\n";
    let behind = "      - forwarded: { trust: [10.0.0.0/8] }\n";
    let vips = "    plugins:\n      - vip_route: { vips: { 127.0.0.1: n, 127.0.0.1:81: n, 127.0.0.2: n, \"::1\": n } }\n";
    let proxy = "    plugins:\n      - proxy_protocol: { version: 1 }\n";
    let to_m = "      - path_route: { paths: { /m: m } }\n";
    let (checked, with_header) = ("{ tcp: {} }", "{ tcp: {}, proxy_protocol: 1 }");
    let elsewhere = "{ http: { path: /, port: 9 } }";
    let dropped =
        "f:14:34: listeners[0].plugins[0].sticky_cookie.secure: warning: browsers drop this cookie";
    let plain = "f:7:5: pools.p.health: warning: listener `a` sends its nodes the PROXY protocol, and this check does not; expected `proxy_protocol: 1` in it";
    let unbound = |place: &str, vip: &str| {
        format!(
            "f:14:{place}: warning: `{vip}` is not bound by this listener, so that no flow takes this route; expected an address of `bind` (`127.0.0.1:80`, `[::]:81`)"
        )
    };
    let vip_81 = unbound(
        "44: listeners[0].plugins[0].vip_route.vips[\"127.0.0.1:81\"]",
        "127.0.0.1:81",
    );
    let vip_2 = unbound(
        "61: listeners[0].plugins[0].vip_route.vips[\"127.0.0.2\"]",
        "127.0.0.2",
    );
    let cases: &[(&str, &[&str], &str, &[&str])] = &[
        ("a cookie over plain HTTP", &[cookie], checked, &[dropped]),
        (
            "behind a proxy that ends TLS",
            &[cookie, behind],
            checked,
            &[],
        ),
        (
            "behind a balancer",
            &["    accept_proxy: [10.0.0.1]\n", cookie],
            checked,
            &[],
        ),
        ("addresses", &[vips], checked, &[&vip_81, &vip_2]),
        (
            "any address",
            &["    accept_proxy: [10.0.0.1]\n", vips],
            checked,
            &[],
        ),
        ("a check without the header", &[proxy], checked, &[plain]),
        ("a check with it", &[proxy], with_header, &[]),
        ("a check of another port", &[proxy], elsewhere, &[]),
        ("no header at all", &[], checked, &[]),
        (
            "a node behind a route",
            &[proxy, to_m],
            with_header,
            &["f:3:30: nodes.m.health: warning: listener `a` sends"],
        ),
    ];
    for (case, listener, health, expected) in cases {
        let told = warnings(&listener.concat(), health);
        let fits = |(told, expected): (&String, &&str)| told.starts_with(expected);
        let same = told.len() == expected.len() && told.iter().zip(*expected).all(fits);
        assert!(same, "{case}: {told:#?}");
    }
}
