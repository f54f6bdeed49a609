//! The site: what the edges tell each other through the store, beyond assignments.
//!
//! In: orders of operators, flows of nodes. Out: the same orders at every edge, counts of the whole site.
//! Source: issue 16 §3, §4, §5.

pub mod counts;
pub mod edge_report;
pub mod exchange;
pub mod follow;
pub mod give;
pub mod news;
pub mod obey;
pub mod order;
pub mod order_book;
pub mod site_state;
pub mod store;

pub use site_state::Site;
