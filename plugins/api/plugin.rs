//! A built plugin, and the plugins of a listener sorted by role.
//!
//! In: the plugins that the blocks of a configuration build. Out: for each role the plugins that have it, so
//! that the core asks a plugin only what it decides.

use std::ops::Deref;
use std::sync::Arc;

use super::roles::{HeadEditor, Preamble, Router, Sticky};
use crate::trust::Trust;

/// A plugin by its roles. Most plugins have one.
#[derive(Clone, Default)]
pub struct Plugin {
    /// Routes flows.
    pub router: Option<Arc<dyn Router>>,
    /// Sticks clients to nodes.
    pub sticky: Option<Arc<dyn Sticky>>,
    /// Edits heads.
    pub editor: Option<Arc<dyn HeadEditor>>,
    /// Writes the bytes that a node reads first.
    pub preamble: Option<Arc<dyn Preamble>>,
    /// Senders whose `X-Forwarded-For` the plugin trusts. The first plugin of the list that trusts any sender decides
    /// who the client is for queues, for `max_flows_per_client`, for `balance: hash` and for passive health.
    pub trust: Trust,
}

impl Plugin {
    /// A plugin that routes flows.
    pub fn router(router: impl Router + 'static) -> Self {
        Plugin {
            router: Some(Arc::new(router)),
            ..Plugin::default()
        }
    }

    /// A plugin that sticks clients to nodes.
    pub fn sticky(sticky: impl Sticky + 'static) -> Self {
        Plugin {
            sticky: Some(Arc::new(sticky)),
            ..Plugin::default()
        }
    }

    /// A plugin that edits heads.
    pub fn editor(editor: impl HeadEditor + 'static) -> Self {
        Plugin {
            editor: Some(Arc::new(editor)),
            ..Plugin::default()
        }
    }

    /// A plugin that writes the bytes that a node reads first.
    pub fn preamble(preamble: impl Preamble + 'static) -> Self {
        Plugin {
            preamble: Some(Arc::new(preamble)),
            ..Plugin::default()
        }
    }

    /// Returns the plugin with the senders whose `X-Forwarded-For` it trusts.
    pub fn trusting(self, trust: Trust) -> Self {
        Plugin { trust, ..self }
    }
}

/// One plugin of a listener, in one of its roles.
pub struct Placed<R: ?Sized> {
    /// Its index in the listener's list.
    pub place: usize,
    /// Its word: file name, YAML key and metrics label.
    pub name: &'static str,
    role: Arc<R>,
}

impl<R: ?Sized> Deref for Placed<R> {
    type Target = R;

    fn deref(&self) -> &R {
        &self.role
    }
}

/// The plugins of one listener by role, each role in the order of the listener's list.
#[derive(Default)]
pub struct Plugins {
    /// Plugins that route.
    pub routers: Box<[Placed<dyn Router>]>,
    /// Plugins that stick clients to nodes.
    pub sticky: Box<[Placed<dyn Sticky>]>,
    /// Plugins that edit heads.
    pub editors: Box<[Placed<dyn HeadEditor>]>,
    /// Plugins that write the bytes that a node reads first.
    pub preambles: Box<[Placed<dyn Preamble>]>,
    /// Trusted senders of those plugins that trust any.
    pub trusts: Box<[Trust]>,
}

impl FromIterator<(&'static str, Plugin)> for Plugins {
    /// Sorts plugins, each with its word, by their roles.
    fn from_iter<I: IntoIterator<Item = (&'static str, Plugin)>>(plugins: I) -> Self {
        let plugins: Vec<_> = plugins.into_iter().collect();
        Plugins {
            routers: placed(&plugins, |p| p.router.clone()),
            sticky: placed(&plugins, |p| p.sticky.clone()),
            editors: placed(&plugins, |p| p.editor.clone()),
            preambles: placed(&plugins, |p| p.preamble.clone()),
            trusts: plugins
                .into_iter()
                .map(|(_, p)| p.trust)
                .filter(|trust| !trust.is_empty())
                .collect(),
        }
    }
}

fn placed<R: ?Sized>(
    plugins: &[(&'static str, Plugin)],
    role: impl Fn(&Plugin) -> Option<Arc<R>>,
) -> Box<[Placed<R>]> {
    let all = plugins.iter().enumerate();
    let with_role = all.filter_map(|(place, (name, plugin))| {
        role(plugin).map(|role| Placed { place, name, role })
    });
    with_role.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Flow, PoolId, Recalled, Route};

    struct Silent;

    impl Router for Silent {
        fn route(&self, _: &Flow<'_>) -> Option<Route> {
            None
        }
    }

    impl Sticky for Silent {
        fn recall(&self, _: &Flow<'_>, _: PoolId) -> Option<Recalled> {
            None
        }
    }

    impl HeadEditor for Silent {}

    /// Fails if a plugin is asked in a role that it lacks, or out of the order of the list.
    #[test]
    fn plugins_are_sorted_by_role_in_the_order_of_the_list() {
        let trust: Trust = serde_yaml::from_str("[10.0.0.0/8]").expect("a network");
        let both = Arc::new(Silent);
        let both = Plugin {
            sticky: Some(both.clone()),
            editor: Some(both),
            ..Plugin::default()
        };
        let listed = [
            ("a", Plugin::editor(Silent)),
            ("b", Plugin::router(Silent)),
            ("c", both),
            ("d", Plugin::router(Silent).trusting(trust.clone())),
        ];
        let plugins: Plugins = listed.into_iter().collect();
        let routers = plugins.routers.iter().map(|p| (p.place, p.name));
        assert_eq!(routers.collect::<Vec<_>>(), [(1, "b"), (3, "d")]);
        let sticky = plugins.sticky.iter().map(|p| (p.place, p.name));
        assert_eq!(sticky.collect::<Vec<_>>(), [(2, "c")]);
        let editors = plugins.editors.iter().map(|p| (p.place, p.name));
        assert_eq!(editors.collect::<Vec<_>>(), [(0, "a"), (2, "c")]);
        assert!(plugins.preambles.is_empty());
        assert_eq!(*plugins.trusts, [trust]);
    }
}
