//! What a policy is told about a request.

use std::net::IpAddr;

use crate::base::Principal;

/// Names and URIs longer than this are refused before any rule is asked; it bounds the work of patterns.
pub(crate) const MAX_NAME_BYTES: usize = 8 * 1024;

/// A request, as far as policy is concerned. Borrowed from the request; cheap to copy.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The tenant's id.
    pub tenant: &'a str,
    /// The route's id.
    pub route: &'a str,
    /// The server's id; `None` if the request is not for a particular one.
    pub server: Option<&'a str>,
    /// Who calls.
    pub principal: &'a Principal,
    /// The client's address.
    pub ip: IpAddr,
    /// The JSON-RPC method, as sent.
    pub method: &'a str,
    /// What the request reaches, by the server's own name for it.
    pub item: Item<'a>,
    /// The text of `params.arguments`, exactly as it is sent on. Read only if a rule asks for it. The message must have
    /// been checked for duplicate keys.
    pub arguments: Option<&'a str>,
}

/// What a request reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Item<'a> {
    /// Nothing in particular.
    None,
    /// A prompt, by name.
    Prompt(&'a str),
    /// A resource, by URI.
    Resource(&'a str),
    /// A resource template, by its text.
    ResourceTemplate(&'a str),
    /// A tool, by name.
    Tool(&'a str),
}

/// The kinds of [`Item`] that rules tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ItemKind {
    /// Prompts.
    Prompt,
    /// Resources and their templates.
    Resource,
    /// Tools.
    Tool,
}

/// A set of [`ItemKind`]s.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ItemKinds(u8);

impl<'a> Item<'a> {
    /// Its kind.
    pub fn kind(self) -> Option<ItemKind> {
        match self {
            Item::None => None,
            Item::Prompt(_) => Some(ItemKind::Prompt),
            Item::Resource(_) | Item::ResourceTemplate(_) => Some(ItemKind::Resource),
            Item::Tool(_) => Some(ItemKind::Tool),
        }
    }

    /// Its name, URI or template; empty for [`Item::None`].
    pub fn name(self) -> &'a str {
        match self {
            Item::None => "",
            Item::Prompt(name) | Item::Resource(name) | Item::ResourceTemplate(name) | Item::Tool(name) => {
                name
            }
        }
    }

    /// The method that reaches it.
    pub(crate) fn method(self) -> &'static str {
        match self {
            Item::None => "",
            Item::Prompt(_) => "prompts/get",
            Item::Resource(_) | Item::ResourceTemplate(_) => "resources/read",
            Item::Tool(_) => "tools/call",
        }
    }
}

impl ItemKind {
    /// Every kind.
    pub const ALL: [ItemKind; 3] = [ItemKind::Prompt, ItemKind::Resource, ItemKind::Tool];
}

impl ItemKinds {
    pub(crate) fn insert(&mut self, kind: ItemKind) {
        self.0 |= 1 << kind as u8;
    }

    pub(crate) fn contains(self, kind: ItemKind) -> bool {
        self.0 & (1 << kind as u8) != 0
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(crate) fn covers(self, other: ItemKinds) -> bool {
        other.0 & !self.0 == 0
    }
}

impl FromIterator<ItemKind> for ItemKinds {
    fn from_iter<I: IntoIterator<Item = ItemKind>>(kinds: I) -> Self {
        let mut set = Self::default();
        kinds.into_iter().for_each(|kind| set.insert(kind));
        set
    }
}

impl Facts<'_> {
    /// Whether the method and the item belong together. A call without the name of what it calls must not slip past the
    /// rules that go by name.
    pub(crate) fn is_consistent(&self) -> bool {
        let item = self.item;
        item.name().len() <= MAX_NAME_BYTES
            && match self.method {
                "tools/call" => matches!(item, Item::Tool(_)),
                "prompts/get" => matches!(item, Item::Prompt(_)),
                "resources/read" | "resources/subscribe" | "resources/unsubscribe" => {
                    item.kind() == Some(ItemKind::Resource)
                }
                COMPLETE => {
                    matches!(item, Item::Prompt(_) | Item::Resource(_) | Item::ResourceTemplate(_))
                }
                _ => true,
            }
    }
}

/// Completions reach an item without the arguments of the later call.
pub(crate) const COMPLETE: &str = "completion/complete";

/// Whether a method reaches no item by itself, so that `default: deny` does not deny it: the handshake, pings,
/// notifications, lists (their entries are decided one by one), log levels, subscriptions (their URIs are) and tasks
/// (their ids are bound to the caller whose call was allowed).
pub fn is_open_method(method: &str) -> bool {
    matches!(
        method,
        "initialize"
            | "logging/setLevel"
            | "ping"
            | "prompts/list"
            | "resources/list"
            | "resources/templates/list"
            | "server/discover"
            | "subscriptions/listen"
            | "tasks/cancel"
            | "tasks/get"
            | "tasks/list"
            | "tasks/result"
            | "tasks/update"
            | "tools/list"
    ) || method.starts_with("notifications/")
}
