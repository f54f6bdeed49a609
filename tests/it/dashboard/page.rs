//! The dashboard's page under the hands of an operator: questions, keys, many nodes, a narrow window.
//!
//! In: an edge, Chromium. Out: what has the focus, what is open, which rows are there. Source: FAULTS D71.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::{COOKIE, ENTER, press, send};
use crate::browser::Browser;
use crate::edge::Edge;
use crate::setup::Setup;
use crate::vip::Block;

/// The key Escape, as WebDriver names it.
const ESCAPE: &str = "\u{e00c}";

/// What the tests of this file look at. `beat` differs after each refresh of the page.
const LOOK: &str = "
    const $ = (id) => document.getElementById(id);
    const scroller = $('nodes').closest('.scroll');
    const rows = [...document.querySelectorAll('#nodes tr:not(.gap)')];
    const at = document.activeElement;
    return { asks: $('ask').open ? $('ask-title').textContent : '',
        focus: at.dataset.order ?? (at.id || at.textContent), names: rows.map((row) => row.dataset.name),
        states: rows.map((row) => row.dataset.state), matching: $('matching').textContent,
        counts: [...document.querySelectorAll('#states b')].map((b) => b.textContent),
        scrolled: scroller.scrollTop, milliseconds: Number(document.body.dataset.milliseconds),
        changes: [...$('changes').children].map((line) => line.textContent),
        beat: document.querySelector('#charts .line')?.getAttribute('d') ?? '' };";

/// Polls the page until `good`.
async fn look(browser: &Browser, what: &str, good: impl Fn(&Value) -> bool) -> Value {
    browser.until(what, LOOK, Vec::new(), good).await
}

/// Waits for the next refresh of the page.
async fn refreshed(browser: &Browser) -> Value {
    let before = browser.run(LOOK, Vec::new()).await;
    look(browser, "a refresh", |l| l["beat"] != before["beat"]).await
}

/// Sends keys to the element that has the focus.
async fn keys(browser: &Browser, keys: &str) {
    let focused = browser.client.active_element().await;
    let focused = focused.expect("an element with the focus");
    focused.send_keys(keys).await.expect("it takes keys");
}

/// Aim: an order that ends sessions asks with the node's name, and only the answer gives it. Escape means no.
/// A refresh leaves the question open and the focus where it is. Fails if the order is given at once, if a
/// refresh closes the question, or if the focus is lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_question_names_its_node() {
    let setup = Setup::with(2, COOKIE, "").await;
    let browser = Browser::at(&format!("http://{}/", setup.block.admin())).await;
    look(&browser, "two nodes", |l| l["names"] == json!(["n1", "n2"])).await;
    let order = "api/nodes/n2/down";
    press(&browser, order).await;
    let asked = look(&browser, "the question", |l| l["asks"] != "").await;
    assert_eq!(asked["asks"], "Down n2: sure?");
    assert_eq!(asked["focus"], "Cancel", "Enter twice does nothing");
    let still = refreshed(&browser).await;
    assert_eq!(
        [&still["asks"], &still["focus"]],
        [&asked["asks"], &asked["focus"]]
    );
    keys(&browser, ESCAPE).await;
    let closed = look(&browser, "no question", |l| l["asks"] == "").await;
    assert_eq!(closed["focus"], order);
    assert_eq!(closed["states"], json!(["up", "up"]), "not given");
    keys(&browser, ENTER).await;
    look(&browser, "the question", |l| l["asks"] != "").await;
    send(&browser, "#ask-yes", ENTER).await;
    let down = look(&browser, "the order", |l| {
        l["states"] == json!(["up", "down"])
    })
    .await;
    assert_eq!(down["counts"], json!(["2", "1", "0", "1"]));
    let changes = look(&browser, "the change", |l| {
        l["changes"][0]
            .as_str()
            .is_some_and(|c| c.contains("n2 is down: ordered"))
    });
    changes.await;
    browser.close().await;
}

/// Aim: the key `/` leads to the filter, and the browser refuses to read text as HTML. Fails if the key is
/// typed instead, or if the policy allows text to become a tag.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_leads_to_the_filter() {
    let setup = Setup::with(2, COOKIE, "").await;
    let browser = Browser::at(&format!("http://{}/", setup.block.admin())).await;
    look(&browser, "two nodes", |l| l["names"] == json!(["n1", "n2"])).await;
    keys(&browser, "/").await;
    look(&browser, "the filter", |l| l["focus"] == "filter").await;
    keys(&browser, "n2").await;
    let found = look(&browser, "one node", |l| l["names"] == json!(["n2"])).await;
    assert_eq!(found["matching"], "1 of 2 shown");
    let script =
        "try { document.createElement('p').innerHTML = '<b>'; } catch (e) { return e.name; }";
    assert_eq!(browser.run(script, Vec::new()).await, "TypeError");
    browser.close().await;
}

/// Aim: with 1,000 nodes the page has rows only for those in view, and a refresh takes less than 50 ms. The
/// node that is Down comes first. A refresh keeps the place of the scroll, and the focus of a row that is out
/// of view. In a narrow window the orders stay within reach. Fails if each node has a row, or if the page is
/// wider than the window.
#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_nodes_stay_usable() {
    let block = Block::claim();
    let edge = Edge::start(&block, &many()).await;
    edge.admin("POST", "/api/nodes/n777/down").await;
    let browser = Browser::at(&format!("http://{}/", block.admin())).await;
    let first = look(&browser, "the nodes", |l| l["counts"][0] == "1000").await;
    assert_eq!(first["counts"], json!(["1000", "1", "0", "999"]));
    assert_eq!([&first["names"][0], &first["names"][1]], ["n777", "n1"]);
    assert!(first["names"].as_array().is_some_and(|n| n.len() < 100));
    // A busy machine stretches single refreshes, not all of them.
    let fast = |l: &Value| l["milliseconds"].as_f64().is_some_and(|ms| ms < 50.0);
    look(&browser, "a fast refresh", fast).await;
    let scroll = "document.getElementById('nodes').closest('.scroll').scrollTop = arguments[0];";
    browser.run(scroll, vec![json!(20_000)]).await;
    look(&browser, "rows in view", |l| names(l, "n450")).await;
    let focus = "document.querySelector(\"[data-order='api/nodes/n450/drain']\").focus();";
    browser.run(focus, Vec::new()).await;
    browser.run(scroll, vec![json!(2_000)]).await;
    look(&browser, "other rows", |l| names(l, "n50")).await;
    let after = refreshed(&browser).await;
    assert_eq!(
        (&after["focus"], &after["scrolled"]),
        (&json!("api/nodes/n450/drain"), &json!(2_000))
    );
    send(&browser, "#filter", "n42").await;
    let eleven = |l: &Value| l["matching"] == "11 of 1000 shown";
    look(&browser, "n42 and n420 to n429", eleven).await;
    let resized = browser.client.set_window_size(500, 900).await;
    resized.expect("a narrow window");
    let reach = "const more = document.querySelector('#nodes [aria-label=\"Orders for n420\"]');
        return document.documentElement.scrollWidth <= innerWidth && more.offsetWidth > 0
            && more.getBoundingClientRect().right < innerWidth;";
    browser
        .until("orders in reach", reach, Vec::new(), |is| *is == true)
        .await;
    browser.close().await;
}

/// Whether a node has a row.
fn names(look: &Value, name: &str) -> bool {
    let names = look["names"].as_array();
    names.is_some_and(|names| names.iter().any(|one| one == name))
}

/// A configuration of 1,000 nodes. Nobody checks them, so nothing needs to listen there.
fn many() -> String {
    let mut yaml = "nodes:\n".to_owned();
    for n in 1..=1_000 {
        // Writing to a String cannot fail.
        let _ = writeln!(yaml, "  n{n}: {{ address: 10.0.0.1:{} }}", 10_000 + n);
    }
    yaml + "pools:\n  p: { nodes: [n1, n2] }\nlisteners:\n  - name: plain\n    bind: [200.0.0.10:80]\n    \
            mode: http\n    to: p\n"
}
