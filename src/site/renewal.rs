//! Tells the store again of assignments in use, so that they live there, and fills a store that has lost them.
//!
//! In: the tables of this edge, every third of their `expiry`, and as a whole when the store is back. Out: their keys
//! live on; what another edge has assigned meanwhile is taken over.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pushgate_plugins::api::{SharedTable, Used};
use tokio::time::{sleep, timeout};

use super::StoreError;
use super::claims::{Claims, Joined, set, ttl};
use super::value::Value;
use crate::balance::Pool;

/// Assignments in one packet.
const PACKET: usize = 500;
/// Pause between two packets: claims of flows go between them.
const PAUSE: Duration = Duration::from_millis(5);
/// Deadline of a packet.
const DEADLINE: Duration = Duration::from_secs(5);
/// Time between two looks at what is due.
const LOOK: Duration = Duration::from_secs(1);

/// Renews the assignments of all tables; never ends.
pub async fn renew(claims: Arc<Claims>) {
    let mut connects = claims.store.connects();
    let begun = Instant::now();
    loop {
        let is_back = timeout(LOOK, connects.changed())
            .await
            .is_ok_and(|c| c.is_ok());
        let due: Vec<_> = {
            let mut tables = claims.tables.lock();
            if is_back {
                // Everything: the store may have been emptied, or another edge may have gone on alone.
                tables.values_mut().for_each(|t| t.told = None);
            }
            let due = tables.iter().filter(|(_, t)| is_due(t));
            due.map(|(place, t)| (place.clone(), t.table.clone(), t.told))
                .collect()
        };
        for (place, table, told) in due {
            let now = Instant::now();
            let since = told.unwrap_or(begun.checked_sub(DAY).unwrap_or(begun));
            // What was not told is due again.
            if tell(&claims, &*table, since).await.is_ok()
                && let Some(joined) = claims.tables.lock().get_mut(&place)
            {
                joined.told = Some(now);
            }
        }
    }
}

fn is_due(joined: &Joined) -> bool {
    let Some(told) = joined.told else { return true };
    let every = joined.table.renewal();
    every.is_some_and(|every| told.elapsed() >= every)
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
    let mut known = Vec::with_capacity(packet.len());
    for used in packet {
        // Packets before this one took their time, and a rebalance may have moved the client meanwhile.
        if !used.0.holds(used.1) {
            continue;
        }
        let pool = claims.pool(used.0.pool());
        let node = pool.as_ref().and_then(|p| p.node(used.1));
        if let (Some(node), Ok(key)) = (node, claims.key_of(&*used.0)) {
            let ours = Value::new(&node.name, used.2);
            known.push((used, key, ours, pool));
        }
    }
    let mut live = redis::pipe();
    for (used, key, ..) in &known {
        let left = ttl(&*used.0, used.2).as_millis() as u64;
        live.cmd("GETEX").arg(key).arg("PX").arg(left);
    }
    let found: Vec<Option<String>> = claims.store.call_all(&live, DEADLINE).await?;
    let mut write = redis::pipe();
    let mut written = Vec::new();
    for ((used, key, ours, pool), found) in known.into_iter().zip(found) {
        let (claim, node, age) = used;
        if !claim.holds(*node) {
            continue;
        }
        let how: &[&str] = match found.as_deref().and_then(Value::parse) {
            Some(other) if other.node == ours.node => continue,
            // A session is where its last answer came from.
            Some(other) if claim.is_proved() && other.assigned < ours.assigned => &["GET"],
            Some(_) => {
                agree(claims, (used, ours, pool), found).await;
                continue;
            }
            // Another edge may write it in this moment.
            None => &["NX", "GET"],
        };
        write.add_command(set(&key, &ours.text(), &**claim, *age, how));
        written.push(((used, ours, pool), how.len() > 1));
    }
    if written.is_empty() {
        return Ok(());
    }
    let before: Vec<Option<String>> = claims.store.call_all(&write, DEADLINE).await?;
    for ((known, is_first), before) in written.into_iter().zip(before) {
        // What was forgotten while it was written must not stay.
        let (claim, node, _) = known.0;
        if before.is_none() && !claim.holds(*node) {
            claims.remove(&**claim, *node).await;
        } else if is_first {
            agree(claims, known, before).await;
        }
    }
    Ok(())
}

/// Takes over what another edge has written, or puts our value in its place if nobody here can use it.
async fn agree(
    claims: &Claims,
    ((claim, node, _), ours, pool): (&Used, Value, Option<Arc<Pool>>),
    found: Option<String>,
) {
    if let (Some(pool), Some(found)) = (pool, found)
        && claims.follow(&**claim, &pool, &found, &[]).is_none()
    {
        claims
            .replace(&**claim, &pool, &found, (*node, ours), &[])
            .await;
    }
}
