//! Sticks a client to a node by a cookie that the edge inserts.
//!
//! In: `Cookie` of the request. Out: `Set-Cookie` on the first response of a new assignment, or of one that another
//! plugin recalled, also on a 101. The node never sees this cookie. Edges with the same `key_file` read each
//! other's cookies; they share nothing else.
//! Source: Lightstreamer clustering §2.1.2 (Option 1.A.2), §3.1.2 (2.A.2), §4, §5.1; RFC 6265.

mod config;
#[cfg(fuzzing)]
pub mod fuzz;
pub(crate) mod header;
mod keys;
mod token;

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::api::{
    Assignment, EditError, Flow, Forget, Forgotten, HeadEditor, How, Mark, PoolId, Recalled, SKEW,
    Sticky,
};
use crate::forget_rules::ForgetRules;
use crate::head::Edits;
use crate::lifetime::Lifetime;
pub use config::{Config, SameSite};
pub use keys::{MAX_KEYS, key_of, parse as keys_in};
use token::{Ring, TOKEN_CHARS, Token};

const NAME: &str = "sticky_cookie";

/// Most cookies of our name that are verified: each forged cookie costs an HMAC for each key.
const MAX_TRIED: usize = 8;

struct StickyCookie {
    name: Box<[u8]>,
    /// `; Path=/; HttpOnly…`, computed once.
    attributes: Box<[u8]>,
    lifetime: Lifetime,
    cut_at_max_age: bool,
    /// Most live flows of one token.
    max_flows: NonZeroUsize,
    ring: Ring,
    forget_rules: Arc<ForgetRules>,
    /// Holds the random key: after a reload `Keep::sweep` drops every value that no plugin holds.
    _own_key: Option<Arc<keys::Random>>,
}

impl StickyCookie {
    /// Returns the first good token of the request for `pool`, and its age.
    fn find(&self, flow: &Flow<'_>, pool: PoolId) -> Option<(Token, Duration)> {
        let wall = since_1970(flow.wall);
        header::values(flow.request?, &self.name)
            .take(MAX_TRIED)
            .filter_map(|text| self.ring.verify(text))
            .filter(|t| t.pool == pool)
            .find_map(|t| Some((t, self.age(&t, wall)?)))
    }

    /// Returns the token's age; `None` if the token is too old, dated further ahead than [`SKEW`], or
    /// forgotten by a rebalance.
    fn age(&self, token: &Token, wall: Duration) -> Option<Duration> {
        if token.learned() > wall + SKEW {
            return None;
        }
        let age = wall.saturating_sub(token.learned());
        let alive = self.lifetime_of(&token.salt).is_none_or(|l| age < l);
        let forgotten = || {
            let id = mark_id(&token.salt);
            self.forget_rules
                .cover(token.pool, token.node, id, token.issued, false)
        };
        (alive && !forgotten()).then_some(age)
    }

    /// Returns the mark of the token with this salt: what identifies the assignment to a rebalance, and when
    /// `cut_at_max_age` cuts the flow.
    fn mark_of(&self, salt: &[u8; 7], issued: u64, age: Duration) -> Mark {
        let left = self.lifetime_of(salt).map(|l| l.saturating_sub(age));
        Mark {
            id: mark_id(salt),
            learned: issued,
            by: Forgotten::Rule,
            cut_after: left.filter(|_| self.cut_at_max_age),
        }
    }

    /// Returns the lifetime of the token with this salt, the same on every edge.
    fn lifetime_of(&self, salt: &[u8; 7]) -> Option<Duration> {
        self.lifetime.of(mark_id(salt) << 8)
    }

    /// Returns the value of `Set-Cookie`; `None` if the client needs no new cookie.
    fn issue(&self, flow: &Flow<'_>, to: &Assignment<'_>) -> Option<Vec<u8>> {
        let pool = to.pool?;
        let age = age_when_issued(to.how)?;
        // Another plugin recalled the node, and the client already has a good cookie for the same node.
        if self
            .find(flow, pool)
            .is_some_and(|(t, _)| t.node == to.node)
        {
            return None;
        }
        let (salt, issued) = salt_of(flow, age);
        if self.lifetime_of(&salt).is_some_and(|l| age >= l) {
            return None;
        }
        let token = self.ring.sign(&Token {
            pool,
            node: to.node,
            issued,
            salt,
        })?;
        let mut line =
            Vec::with_capacity(self.name.len() + 1 + TOKEN_CHARS + self.attributes.len());
        line.extend_from_slice(&self.name);
        line.push(b'=');
        line.extend_from_slice(&token);
        line.extend_from_slice(&self.attributes);
        Some(line)
    }
}

/// Returns the age that a new token starts with: zero for a new assignment; for one recalled by another
/// plugin, its age there. `None`: no new token, because the flow is pinned or this cookie recalled the node.
fn age_when_issued(how: How) -> Option<Duration> {
    match how {
        How::Pinned | How::Recalled { by: NAME, .. } => None,
        // An assignment that another plugin recalled keeps its age. Otherwise the two plugins would renew each
        // other's assignments for ever.
        How::Recalled { age, .. } => Some(age),
        How::Balanced | How::Rebalanced => Some(Duration::ZERO),
    }
}

/// Returns the salt of the token that the flow would get, and the second in which its assignment of this age was
/// learned.
fn salt_of(flow: &Flow<'_>, age: Duration) -> ([u8; 7], u64) {
    let mut salt = [0; 7];
    salt.copy_from_slice(&flow.random.to_be_bytes()[..7]);
    let learned = since_1970(flow.wall).saturating_sub(age);
    (token::dated(salt, learned), learned.as_secs())
}

/// Returns the time since 1970; zero for earlier times.
fn since_1970(t: SystemTime) -> Duration {
    t.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

fn mark_id(salt: &[u8; 7]) -> u64 {
    salt.iter().fold(0, |id, byte| id << 8 | u64::from(*byte))
}

impl Sticky for StickyCookie {
    fn recall(&self, flow: &Flow<'_>, pool: PoolId) -> Option<Recalled> {
        let (token, age) = self.find(flow, pool)?;
        Some(Recalled {
            node: token.node,
            age,
            remembered: true,
            mark: Some(self.mark_of(&token.salt, token.issued, age)),
            max_flows: Some(self.max_flows),
        })
    }

    fn forget(&self, what: &Forget) {
        self.forget_rules.add(what, self.lifetime.max_age);
    }

    fn mark(&self, flow: &Flow<'_>, pool: PoolId, to: &Assignment<'_>) -> Option<Mark> {
        let age = age_when_issued(to.how)?;
        // A client that already has its cookie gets no new one (see `issue`).
        let known = self.find(flow, pool).filter(|(t, _)| t.node == to.node);
        let (salt, issued, age) = known.map_or_else(
            || {
                let (salt, issued) = salt_of(flow, age);
                (salt, issued, age)
            },
            |(token, age)| (token.salt, token.issued, age),
        );
        Some(self.mark_of(&salt, issued, age))
    }
}

impl HeadEditor for StickyCookie {
    fn request(
        &self,
        _: &Flow<'_>,
        _: &Assignment<'_>,
        edits: &mut Edits,
    ) -> Result<(), EditError> {
        header::strip(edits, &self.name)
    }

    fn response(
        &self,
        flow: &Flow<'_>,
        to: &Assignment<'_>,
        edits: &mut Edits,
    ) -> Result<(), EditError> {
        let status = edits.head().status();
        let switching = status == 101;
        // 100 and 103 precede the final response.
        if status < 200 && !switching {
            return Ok(());
        }
        header::drop_set_cookie(edits, &self.name);
        if let Some(cookie) = self.issue(flow, to) {
            edits.append("Set-Cookie", cookie)?;
            if !switching {
                header::forbid_sharing(edits)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
