//! The services that a front door answers for, with the templates of their paths taken apart once.

use std::collections::BTreeMap;

use api::model::{OperationModel, Protocol, Service};

use crate::path_template::{Rank, Template};

/// The services of a front door.
pub struct Services(Vec<Known>);

/// A service with the paths of its operations.
pub(crate) struct Known {
    /// The service.
    pub(crate) service: &'static Service,
    /// Where its operations are, the most specific template first.
    routes: Vec<Route>,
}

struct Route {
    operation: &'static OperationModel,
    template: Template,
}

/// An operation that a path means.
pub(crate) struct Routed<'a> {
    /// The operation.
    pub(crate) operation: &'static OperationModel,
    /// Orders operations of several services: the least is meant.
    pub(crate) rank: &'a Rank,
    /// Decoded labels.
    pub(crate) labels: BTreeMap<&'static str, String>,
}

impl Services {
    /// Takes the templates of the services apart.
    pub fn of(services: &'static [&'static Service]) -> Services {
        Services(services.iter().map(|service| Known::of(service)).collect())
    }

    /// Those that are signed for under a name.
    pub(crate) fn signed_as<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Known> + Clone {
        self.0.iter().filter(move |known| known.service.signing_name == name)
    }
}

impl Known {
    fn of(service: &'static Service) -> Known {
        let has_paths = service.protocols.contains(&Protocol::RestJson);
        let operations = service.operations.iter().filter(|_| has_paths);
        let route = |operation| Route { operation, template: Template::of(operation.uri) };
        let mut routes: Vec<Route> = operations.map(route).collect();
        routes.sort_by(|one, other| one.template.rank.cmp(&other.template.rank));
        Known { service, routes }
    }

    /// The operation that a request means by its path; `None` for services that do not go by paths.
    pub(crate) fn route(
        &self,
        method: &str,
        segments: &[&str],
        query: &[(String, String)],
    ) -> Option<Routed<'_>> {
        self.routes.iter().filter(|route| route.operation.method == method).find_map(|route| {
            let labels = route.template.fit(segments, query)?;
            Some(Routed { operation: route.operation, rank: &route.template.rank, labels })
        })
    }
}
