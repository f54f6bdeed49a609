//! Nodes: their state, their live flows, their health, and the connections to them.
//!
//! Source: Lightstreamer clustering §2.1 (final boxes); Diffusion load balancers, all four points.

mod reserved;
pub mod agent_answer;
pub mod agent_record;
pub mod connect;
pub mod discover;
pub mod drain;
pub mod evict;
pub mod flow_limiter;
pub mod health;
pub mod idle_upstreams;
pub mod live_flow;
pub mod live_flows;
pub mod node_limits;
pub mod node_status;
pub mod passive_health;
pub mod server_load;
pub mod shortage;
pub mod signal;
pub mod site_share;
pub mod stage;
pub mod state;
pub mod node;
mod sync;
pub mod tls;
pub mod token_bucket;
pub mod weight;

pub use idle_upstreams::IdleUpstreams;
pub use live_flow::LiveFlow;
pub use node::Node;
pub use reserved::Reserved;
pub use state::{AgentVerdict, Membership, Order, State};
pub use weight::WeightOrder;
