//! The store's half of an app's routing entry, and how the engine's half joins it.

use dozen_api::{
    engine::Dyno,
    routes::{self, App, Certificate, Dialogue, DynoState, Edge, Mode},
};
use dozen_domain::{
    dyno::State,
    ids::{AppId, DynoId},
    name::{AppName, DynoName, ProcessType},
};

use sqlx::SqliteConnection;

use crate::{
    Context, ops,
    store::{self, domains::Domain},
};

/// What the store says of an app's routing.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Half {
    id: AppId,
    name: AppName,
    hosts: Vec<String>,
    mode: Mode,
    web_quantity: u32,
    /// Autoscaling has left it without web dynos until a request comes.
    asleep: bool,
    error_page_url: Option<String>,
    maintenance_page_url: Option<String>,
    edge: Edge,
    dialogue: Dialogue,
}

/// Reads an app's half; `None` when there is no such app.
pub(super) async fn read(context: &Context, id: AppId) -> ops::Result<Option<Half>> {
    let mut db = context.store.read().await?;
    let Some(app) = store::apps::by_id(&mut db, id).await? else { return Ok(None) };
    let mut hosts = vec![format!("{}.{}", app.name, context.settings.apps_domain)];
    let domains = store::domains::of_app(&mut db, id).await?;
    hosts.extend(domains.iter().map(|domain| domain.hostname.clone()));
    hosts.iter_mut().for_each(|host| host.make_ascii_lowercase());
    hosts.sort_unstable();
    hosts.dedup();

    let current = store::releases::current(&mut db, id).await?;
    let mode = match &current {
        _ if app.maintenance => Mode::Maintenance,
        Some(release) if release.slug.is_some() => Mode::Serving,
        _ => Mode::Blank,
    };
    let config = match &current {
        Some(release) => ops::releases::config(context, release)?,
        None => Default::default(),
    };
    let page = |name: &str| config.get(name).map(|url| url.expose().to_owned()).filter(|url| !url.is_empty());
    let edge = edge(context, &mut db, id, &domains).await?;
    let switches = store::features::of_app(&mut db, id).await?;
    let is_on = |name: &str| switches.iter().any(|switch| switch.name == name && switch.enabled);
    let formation = store::formation::of_app(&mut db, id).await?;
    let web = formation.iter().find(|formation| formation.process_type.is_web());
    let web_quantity = web.map_or(0, |formation| formation.quantity);
    let monitors = store::monitors::of_app(&mut db, id).await?;
    let asleep = web.is_some_and(|web| web.quantity == 0)
        && monitors.iter().any(|monitor| monitor.process_type.is_web() && monitor.may_sleep());
    Ok(Some(Half {
        id,
        name: app.name,
        hosts,
        mode,
        // Requests are held for the dyno that their coming will start.
        web_quantity: if asleep { 1 } else { web_quantity },
        asleep,
        error_page_url: page("ERROR_PAGE_URL"),
        maintenance_page_url: page("MAINTENANCE_PAGE_URL"),
        edge,
        dialogue: Dialogue {
            keep_alive: !is_on(ops::features::NO_KEEP_ALIVE_TO_DYNOS),
            http2: is_on(ops::features::HTTP2_TO_DYNOS),
            end_to_end_continue: is_on(ops::features::END_TO_END_CONTINUE),
        },
    }))
}

/// What concerns the router's outer side: certificates with their keys, and the switches that it heeds.
async fn edge(context: &Context, db: &mut SqliteConnection, id: AppId, domains: &[Domain]) -> ops::Result<Edge> {
    let mut certificates = Vec::new();
    for endpoint in store::sni_endpoints::of_app(db, id).await? {
        let uses = |domain: &&Domain| domain.sni_endpoint.as_ref().is_some_and(|(used, _)| *used == endpoint.id);
        let hosts: Vec<String> = domains.iter().filter(uses).map(|domain| domain.hostname.clone()).collect();
        if !hosts.is_empty() {
            let key = ops::sni_endpoints::open(context, &endpoint)?;
            certificates.push(Certificate { hosts, chain: endpoint.chain, key });
        }
    }
    let switches = store::features::of_app(db, id).await?;
    let on = |name: &str| switches.iter().any(|switch| switch.name == name && switch.enabled);
    Ok(Edge {
        certificates,
        challenges: ops::managed::challenges(context).get(&id).cloned().unwrap_or_default(),
        https_redirect: on(ops::features::HTTPS_REDIRECT),
        session_affinity: on(ops::features::SESSION_AFFINITY),
    })
}

impl Half {
    /// Says whether requests wait for autoscaling to start a dyno.
    pub(super) fn is_asleep(&self) -> bool {
        self.asleep
    }

    /// A dyno that is about to be, as the router sees it; it never becomes more than that.
    fn expected(&self) -> routes::Dyno {
        let name = DynoName::new(ProcessType::web(), 1);
        routes::Dyno { id: DynoId(self.id.0), name, addresses: Vec::new(), state: DynoState::Starting }
    }

    /// The whole entry, with these dynos of the app.
    pub(super) fn with(&self, dynos: &[Dyno]) -> App {
        let there = dynos.iter().filter(|dyno| dyno.name.number() <= self.web_quantity).filter_map(web);
        let there = there.filter(|dyno| !self.asleep || dyno.state == DynoState::Up);
        App {
            id: self.id,
            name: self.name.clone(),
            hosts: self.hosts.clone(),
            mode: self.mode,
            web_quantity: self.web_quantity,
            // A one-off may have the type web too, but no number of the formation's and no port.
            dynos: there.chain(self.asleep.then(|| self.expected())).collect(),
            error_page_url: self.error_page_url.clone(),
            maintenance_page_url: self.maintenance_page_url.clone(),
            edge: self.edge.clone(),
            dialogue: self.dialogue,
        }
    }
}

/// A web dyno as the router sees it; `None` for one that gets no requests.
fn web(dyno: &Dyno) -> Option<routes::Dyno> {
    if !dyno.name.process_type().is_web() {
        return None;
    }
    let (state, addresses) = match &dyno.state {
        State::Up { addresses, .. } => (DynoState::Up, addresses.clone()),
        State::Starting { .. } => (DynoState::Starting, Vec::new()),
        State::Crashed { .. } => (DynoState::Crashed, Vec::new()),
        State::Stopping { .. } | State::Down { .. } | State::Complete { .. } => return None,
    };
    Some(routes::Dyno { id: dyno.id, name: dyno.name.clone(), addresses, state })
}
