//! A client that fills a table of assignments loses its own, and nobody else's.
//!
//! Source: issue 14, section 1 (made-up parameters at 36,000/s left the assignments of others to chance).

use crate::client::h1::H1;
use crate::setup::Setup;

/// Clients whose assignments must stay.
const OTHERS: u8 = 40;

/// Values that one client makes up: many times the table.
const MADE_UP: usize = 2_000;

/// Aim: forty clients are away while one address makes up values at full pace; all forty find their node again.
/// Fails if a full table evicts by age alone.
#[tokio::test(flavor = "multi_thread")]
async fn made_up_values_displace_no_other_client() {
    let plugins = "[{ sticky_param: { from: [{ query: u }], capacity: 100 } }]";
    let setup = Setup::with(2, plugins, "    balance: round_robin\n").await;
    let ask = async |n: u8| {
        let dial = setup.plain().from(setup.block.client(n));
        let mut client = H1::connect(&dial).await;
        let answer = client.get(&format!("/hello?u=u{n}"), &[]).await;
        assert_eq!(answer.status, 200);
        answer.node().to_owned()
    };
    let mut nodes = Vec::new();
    for n in 1..=OTHERS {
        nodes.push(ask(n).await);
    }
    let hostile = setup.plain().from(setup.block.client(OTHERS + 1));
    let mut client = H1::connect(&hostile).await;
    for n in 0..MADE_UP {
        let answer = client.get(&format!("/hello?u=x{n}"), &[]).await;
        assert_eq!(answer.status, 200);
    }
    // Backwards: a client that was forgotten would get a node by turns, and thus another one half the time.
    let mut lost = 0;
    for n in (1..=OTHERS).rev() {
        lost += usize::from(ask(n).await != nodes[usize::from(n) - 1]);
    }
    assert_eq!(lost, 0, "of {OTHERS}");
}
