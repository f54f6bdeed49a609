//! Tells the store again of assignments in use, so that they live there, and fills a store that has lost them.
//!
//! In: the tables of this edge, every third of their `expiry`, and as a whole when the store is back. Out: their keys
//! live on; what another edge has assigned meanwhile is taken over.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pushgate_plugins::api::{SharedTable, Used};
use tokio::time::{sleep, timeout};

use super::StoreError;
use super::claims::{Claims, set, ttl};
use super::value::Value;

/// Assignments in one packet.
const PACKET: usize = 500;
/// Pause between two packets: claims of flows go between them.
const PAUSE: Duration = Duration::from_millis(5);
/// Deadline of a packet.
const DEADLINE: Duration = Duration::from_secs(5);
/// Time between two looks at what is due.
const LOOK: Duration = Duration::from_secs(1);

/// Renews the assignments of all tables; never ends.
pub(super) async fn renew(claims: Arc<Claims>) {
    let mut connects = claims.store.connects();
    let begun = Instant::now();
    loop {
        let is_back = timeout(LOOK, connects.changed())
            .await
            .is_ok_and(|c| c.is_ok());
        let tables: Vec<_> = {
            let tables = claims.tables.lock();
            let due = tables.iter().filter(|(_, t)| {
                is_back
                    || t.table
                        .renewal()
                        .is_some_and(|every| t.told.elapsed() >= every)
            });
            due.map(|(place, t)| (place.clone(), t.table.clone(), t.told))
                .collect()
        };
        for (place, table, told) in tables {
            let now = Instant::now();
            // Everything that lives here: the store may have been emptied, or another edge may have gone on alone.
            let since = if is_back {
                begun.checked_sub(DAY).unwrap_or(begun)
            } else {
                told
            };
            if tell(&claims, &*table, since).await.is_ok()
                && let Some(joined) = claims.tables.lock().get_mut(&place)
            {
                joined.told = now;
            }
        }
    }
}

/// Longer than a process that hands its tables over has had them idle.
const DAY: Duration = Duration::from_secs(24 * 3_600);

/// Tells the store of what was used since `since`.
///
/// Errors: the store did not take all of it.
async fn tell(claims: &Claims, table: &dyn SharedTable, since: Instant) -> Result<(), StoreError> {
    for packet in table.used(since).chunks(PACKET) {
        packet_of(claims, packet).await?;
        sleep(PAUSE).await;
    }
    Ok(())
}

async fn packet_of(claims: &Claims, packet: &[Used]) -> Result<(), StoreError> {
    let key = |used: &Used| claims.key_of(&*used.0).unwrap_or_default();
    let mut live = redis::pipe();
    for used in packet {
        let left = ttl(&*used.0, used.2).as_millis() as u64;
        live.cmd("GETEX").arg(key(used)).arg("PX").arg(left);
    }
    let found: Vec<Option<String>> = claims.store.call_all(&live, DEADLINE).await?;
    let mut missing = redis::pipe();
    let mut is_any = false;
    for (used, found) in packet.iter().zip(found) {
        let (claim, node, age) = used;
        let Some(pool) = claims.pool(claim.pool()) else {
            continue;
        };
        let Some(ours) = pool.node(*node).map(|n| Value::new(&n.name, *age)) else {
            continue;
        };
        let other = found.as_deref().and_then(Value::parse);
        match (other, found) {
            (Some(other), Some(_)) if other.node == ours.node => {}
            // A session is where its last answer came from.
            (Some(other), Some(_)) if claim.is_proved() && other.assigned < ours.assigned => {
                missing
                    .add_command(set(&key(used), &ours.text(), &**claim, *age, &[]))
                    .ignore();
                is_any = true;
            }
            (Some(_), Some(text)) => {
                claims.follow(&**claim, &pool, &text, &[]);
            }
            _ => {
                let set = set(&key(used), &ours.text(), &**claim, *age, &["NX"]);
                missing.add_command(set).ignore();
                is_any = true;
            }
        }
    }
    match is_any {
        true => claims.store.call_all::<()>(&missing, DEADLINE).await,
        false => Ok(()),
    }
}
