//! x
use crate::{api::Plugin, context::{Build, Fault}};
/// x
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {}
struct P;
impl Plugin for P { fn name(&self) -> &'static str { "x" } }
impl Config {
    /// x
    pub fn build(&self, _: &Build<'_>) -> Result<Box<dyn Plugin>, Vec<Fault>> { Ok(Box::new(P)) }
}
