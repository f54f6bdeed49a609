//! Options 2.B.1.3, 2.B.1.4, 2.B.2.3 and 2.B.2.4: TLS ends at the edge, nodes have their own names. Source:
//! Lightstreamer clustering §3.2.1.3, §3.2.1.4, §3.2.2.3, §3.2.2.4.

use super::offload::Offload;

const WILDCARD: &[(&str, &[&str])] = &[("wildcard", &["*.mycompany.com"])];
const EACH: &[(&str, &[&str])] = &[
    ("push1", &["push1.mycompany.com"]),
    ("push2", &["push2.mycompany.com"]),
    ("push", &["push.mycompany.com"]),
];
const TWO_WILDCARDS: &[(&str, &[&str])] =
    &[("my", &["*.mycompany.com"]), ("our", &["*.ourcompany.com"])];
const SIX: &[(&str, &[&str])] = &[
    ("my1", &["push1.mycompany.com"]),
    ("my2", &["push2.mycompany.com"]),
    ("my", &["push.mycompany.com"]),
    ("our1", &["push1.ourcompany.com"]),
    ("our2", &["push2.ourcompany.com"]),
    ("our", &["push.ourcompany.com"]),
];
const PUSH: &[(&str, &[&str])] = &[("push", &["push.mycompany.com"])];

/// §3.2.1.3. Fails without `host_route`.
#[tokio::test(flavor = "multi_thread")]
async fn one_certificate_behind() {
    let it = Offload::start("option-2.B.1.3.yaml", WILDCARD, false).await;
    it.sessions_stay().await;
}

/// §3.2.1.3. Fails without `host_route`.
#[tokio::test(flavor = "multi_thread")]
async fn one_certificate_behind_moves_keep_the_session() {
    let it = Offload::start("option-2.B.1.3.yaml", WILDCARD, false).await;
    it.cluster.moves_keep_the_session().await;
}

/// §3.2.1.4. Fails if S is not balanced, or if the edge's certificate does not cover `push`.
#[tokio::test(flavor = "multi_thread")]
async fn one_certificate_partially_behind() {
    let it = Offload::start("option-2.B.1.4.yaml", WILDCARD, true).await;
    it.sessions_stay().await;
}

/// §3.2.2.3. Fails without `vip_route`, or if a VIP shows another name's certificate.
#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_each_behind() {
    let it = Offload::start("option-2.B.2.3.yaml", EACH, false).await;
    it.sessions_stay().await;
}

/// §3.2.2.3. Fails without `vip_route`.
#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_each_behind_moves_keep_the_session() {
    let it = Offload::start("option-2.B.2.3.yaml", EACH, false).await;
    it.cluster.moves_keep_the_session().await;
}

/// At layer 4 ("Layer-4 SSL offloading"). §3.2.2.3. Fails without `vip_route`, if a VIP shows another name's
/// certificate, or if the edge offers HTTP/2, which the nodes do not speak.
#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_each_behind_at_layer_4() {
    let mut it = Offload::start("option-2.B.2.3-layer4.yaml", EACH, false).await;
    // Without HTTP the edge sends no X-Forwarded-For.
    it.cluster.addresses = false;
    it.sessions_stay().await;
}

/// §3.2.2.4. Fails if S is not balanced.
#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_each_partially_behind() {
    let it = Offload::start("option-2.B.2.4.yaml", PUSH, true).await;
    it.sessions_stay().await;
}

/// §3.2.2.4. Fails if CR comes through the edge: it would see more than the one connection of S.
#[tokio::test(flavor = "multi_thread")]
async fn only_s_passes_the_edge() {
    let it = Offload::start("option-2.B.2.4.yaml", PUSH, true).await;
    it.cluster.one_connection_passes().await;
}

/// Two domains behind one VIP. §3.2.1.3. Fails if the requested name does not choose the certificate, or if
/// `host_route` has one domain only.
#[tokio::test(flavor = "multi_thread")]
async fn both_domains_under_a_wildcard_each() {
    for domain in ["mycompany.com", "ourcompany.com"] {
        let conf = "option-2.B.1.3-multihosting.yaml";
        let it = Offload::start(conf, TWO_WILDCARDS, false).await.of(domain);
        it.sessions_stay().await;
        it.hosts_are_below(domain);
    }
}

/// Two domains with six VIPs and certificates. §3.2.2.3. Fails if a VIP leads to another's node or
/// shows another's certificate.
#[tokio::test(flavor = "multi_thread")]
async fn both_domains_under_a_certificate_each() {
    for domain in ["mycompany.com", "ourcompany.com"] {
        let conf = "option-2.B.2.3-multihosting.yaml";
        let it = Offload::start(conf, SIX, false).await.of(domain);
        it.sessions_stay().await;
        it.hosts_are_below(domain);
    }
}
