//! From drafts to a generation: merges settings, asks the modules, links servers to addresses.

use std::sync::Arc;

use rustc_hash::FxHashMap;
use terrace_base::log::{ErrorLog, Level};
use terrace_conf::ConfError;

use super::location_builder::LocationBuilder;
use super::slots::{MergeContext, Slots};
use super::{Builder, Draft, DraftKind};
use crate::core::error_log::ErrorLogConf;
use crate::core::listen::{ListenConf, ListenSpec};
use crate::core::location_conf::CoreLocation;
use crate::core::server_conf::{CoreServer, CoreServerConf, ServerNameConf};
use crate::generation::{Generation, Listen, Location, Server, ServerIndex};
use crate::location_tree::{LocationTree, Matcher};
use crate::tls::SslConf;

type Built = Vec<Option<Location>>;

/// Turns everything that was read into a generation.
pub(super) fn assemble(mut b: Builder, number: u64) -> Result<(Generation, Vec<(Level, String)>), ConfError> {
    let mut main = b.drafts.pop().unwrap_or_else(|| unreachable!("the main draft is never left"));
    let log = main.slots.of::<ErrorLogConf>().open_main(&b)?;
    let mut built: Built = Vec::new();
    built.resize_with(b.locations as usize, || None);
    let mut servers = Vec::new();
    let mut listens: Vec<Listen> = Vec::new();
    for mut http in main.children.drain(..) {
        http.slots.merge_from(&main.slots, MergeContext::default());
        for mut server in std::mem::take(&mut http.children) {
            server.slots.merge_from(&http.slots, MergeContext::default());
            add_server(&mut b, server, &mut servers, &mut listens, &mut built)?;
        }
    }
    for m in b.modules {
        m.finish(&mut b)?;
    }
    b.vars.check()?;
    // The `http` drafts took an index of their own, which nothing uses.
    let filler = || Arc::new(ErrorLog::stderr(Level::Emerg));
    let locations = built.into_iter().map(|l| l.unwrap_or_else(|| unused(filler()))).collect();
    let locations: Vec<Location> = locations;
    check_certificates(&listens, &servers, &locations)?;
    let prefix = b.paths.prefix.clone();
    let generation = Generation {
        locations,
        servers,
        listens,
        vars: b.vars,
        modules: b.modules,
        log,
        prefix,
        number,
        shared: b.shared,
    };
    Ok((generation, b.warnings))
}

/// The default server of an address with TLS must have something to show.
fn check_certificates(
    listens: &[Listen],
    servers: &[Server],
    locations: &[Location],
) -> Result<(), ConfError> {
    for listen in listens {
        let Some(at) = &listen.ssl else { continue };
        let root = servers[listen.names.default_server().0 as usize].root;
        let ssl = locations[root.0 as usize].settings.find::<SslConf>();
        let has_certificate = |c: &SslConf| {
            c.certificate_hook.is_some()
                || c.server.as_ref().is_some_and(|s| s.rejects || s.tls.has_identity())
        };
        if !ssl.is_some_and(has_certificate) {
            let text = "no \"ssl_certificate\" is defined for the \"listen ... ssl\" directive";
            return Err(ConfError::at(at, text.to_owned()));
        }
    }
    Ok(())
}

fn unused(log: Arc<ErrorLog>) -> Location {
    Location {
        name: Vec::new(),
        core: CoreLocation::bare(log),
        settings: Slots::default(),
        phases: Default::default(),
        content: None,
        header_filters: Vec::new(),
        header_filters_may_wait: false,
        body_filters: Vec::new(),
    }
}

fn add_server(
    b: &mut Builder,
    mut draft: Draft,
    servers: &mut Vec<Server>,
    listens: &mut Vec<Listen>,
    built: &mut Built,
) -> Result<(), ConfError> {
    let index = ServerIndex(servers.len() as u32);
    let names = std::mem::take(draft.slots.of::<ServerNameConf>());
    let core = CoreServer::resolve(draft.slots.of::<CoreServerConf>(), &names);
    link_listens(b, index, &mut draft, &names, listens)?;
    let mut named = FxHashMap::default();
    let children = std::mem::take(&mut draft.children);
    let mut locations = LocationTree::default();
    for child in children {
        add_location(b, child, &draft.slots, &mut locations, &mut named, built)?;
    }
    let root = draft.index;
    let (_, location) = make_location(b, draft)?;
    built[root.0 as usize] = Some(location);
    servers.push(Server { core, root, locations, named });
    Ok(())
}

fn link_listens(
    b: &mut Builder,
    index: ServerIndex,
    draft: &mut Draft,
    names: &ServerNameConf,
    listens: &mut Vec<Listen>,
) -> Result<(), ConfError> {
    let mut specs = std::mem::take(&mut draft.slots.of::<ListenConf>().specs);
    if specs.is_empty() {
        specs.push(ListenSpec::fallback(&draft.at));
    }
    for spec in specs {
        let at = listens.iter().position(|l| l.address == spec.address);
        let listen = match at {
            Some(i) => &mut listens[i],
            None => {
                listens.push(Listen {
                    address: spec.address.clone(),
                    options: spec.options.clone(),
                    ssl: None,
                    names: Default::default(),
                });
                let last = listens.len() - 1;
                &mut listens[last]
            }
        };
        if spec.is_default && !listen.names.claim_default() {
            return Err(ConfError::at(&spec.at, format!("a duplicate default server for {}", spec.address)));
        }
        if spec.has_options {
            listen.options = spec.options;
        }
        if spec.is_ssl {
            listen.ssl.get_or_insert_with(|| spec.at.clone());
        }
        if listen.ssl.is_some() {
            draft.slots.of::<SslConf>().listens = true;
        }
        listen.names.add_server(index, spec.is_default);
        for name in &names.names {
            if !listen.names.add_name(name, index) {
                let shown = name.to_string();
                let message = format!("conflicting server name \"{shown}\" on {}, ignored", spec.address);
                b.warn(&spec.at, &message);
            }
        }
    }
    Ok(())
}

fn add_location(
    b: &mut Builder,
    mut draft: Draft,
    parent: &Slots,
    tree: &mut LocationTree,
    named: &mut FxHashMap<Vec<u8>, crate::location_tree::LocationIndex>,
    built: &mut Built,
) -> Result<(), ConfError> {
    let is_if = matches!(draft.kind, DraftKind::Inner);
    draft.slots.merge_from(parent, MergeContext { is_if });
    let mut nested = LocationTree::default();
    for child in std::mem::take(&mut draft.children) {
        // Locations inside of an `if` do not exist; the table of contexts sees to that.
        add_location(b, child, &draft.slots, &mut nested, named, built)?;
    }
    let (index, at, name) = (draft.index, draft.at.clone(), draft.name.clone());
    let matcher = match &mut draft.kind {
        DraftKind::Location(m) => m.take(),
        _ => None,
    };
    let (auto_redirect, mut location) = make_location(b, draft)?;
    let duplicate =
        || ConfError::at(&at, format!("duplicate location \"{}\"", String::from_utf8_lossy(&name)));
    match matcher {
        Some(m) => {
            if let Matcher::Pattern(regex) = &m {
                location.core.captures =
                    Some(crate::core::location_conf::LocationPattern::of(regex, &b.vars));
            }
            let added = tree.add(m, index, nested, auto_redirect);
            added.map_err(|_| duplicate())?;
        }
        None if !is_if && named.insert(name.clone(), index).is_some() => return Err(duplicate()),
        None => {}
    }
    built[index.0 as usize] = Some(location);
    Ok(())
}

/// Asks the modules. Says whether the location is proxied (nginx's auto redirect).
fn make_location(b: &mut Builder, draft: Draft) -> Result<(bool, Location), ConfError> {
    let mut slots = draft.slots;
    let core = CoreLocation::resolve(&mut slots, b)?;
    let mut location = LocationBuilder {
        settings: slots,
        core,
        name: draft.name,
        is_if: matches!(draft.kind, DraftKind::Inner),
        is_server: matches!(draft.kind, DraftKind::Server),
        at: draft.at,
        order: 0,
        phases: Default::default(),
        content: None,
        content_is_own: false,
        header_filters: Vec::new(),
        body_filters: Vec::new(),
    };
    for (i, m) in b.modules.iter().enumerate() {
        // 0 is that of handlers which come first.
        location.order = i as u16 + 1;
        m.location(b, &mut location)?;
    }
    Ok((location.core.auto_redirect, location.finish()))
}
