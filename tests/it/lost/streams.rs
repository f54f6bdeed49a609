//! An HTTP/2 request whose node is lost: only its stream is reset.
//!
//! Source: RFC 9113 §5.4.2, §8.7 (REFUSED_STREAM says that nothing was sent); RFC 9110 §9.2.2.

use h2::Reason;

use crate::client::h2::H2;
use crate::deadline;

use super::{AT_ONCE, LOSSES, holder, start, visits};

/// Aim: a POST whose node is lost has its stream reset within a second of Down, not with REFUSED_STREAM,
/// because it was sent. The connection serves on. With `on_lost: 502` the POST is answered. Fails if a stream
/// is answered by default, if the connection ends with it, or if the code invites the client to repeat a
/// request that a node has had.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_post_has_its_stream_reset() {
    for (keys, reason) in [("", Some(Reason::CANCEL)), ("    on_lost: 502\n", None)] {
        for loss in LOSSES {
            let what = format!("{loss:?} {keys:?}");
            let setup = start(2, keys).await;
            let mut client = H2::connect(&setup.tls()).await;
            let mut asks = client.clone();
            let waits = tokio::spawn(async move { asks.try_post("/hold", b"x=1").await });
            let holder = holder(&setup).await;
            let down = loss.happens(&setup, &holder).await;
            let answer = deadline(&what, waits).await.expect("an end");
            assert!(down.elapsed() < AT_ONCE, "{what}: {:?}", down.elapsed());
            match reason {
                Some(_) => {
                    let error = answer.err().unwrap_or_else(|| panic!("{what}: answered"));
                    assert!(error.is_reset(), "{what}: {error}");
                    assert_eq!(error.reason(), reason, "{what}");
                }
                None => assert_eq!(answer.expect("an answer").status(), 502, "{what}"),
            }
            assert_eq!(client.get("/hello", &[]).await.status(), 200, "{what}");
            assert_eq!(visits(&setup).iter().sum::<usize>(), 1, "{what}");
        }
    }
}
