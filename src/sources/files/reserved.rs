//! Endpoints at the admin interface of this process, in objects and in documents of a server.

use super::diagnostic::{Diagnostic, SourceMap};
use super::outside::Outside;
use crate::compile::{admin_address, admin_endpoints};
use crate::model::{Model, Origin};

/// Reports each endpoint of an object or of a document of a server that is the admin interface.
pub(super) fn check(
    model: &Model,
    sources: &SourceMap,
    outside: &Outside,
    mistakes: &mut Vec<Diagnostic>,
) {
    let Some(admin) = admin_address(model) else { return };
    for service in &model.services {
        admin_endpoints(&service.value, &admin, |origin, address| {
            if let Origin::File(place) = origin
                && (sources.is_remote(place.file) || outside.has(place.file))
            {
                let message = format!("{address} is the admin interface of this process");
                let help = "an object or a document of a server cannot have it as an endpoint";
                mistakes.push(Diagnostic::at(*place, message).help(help));
            }
        });
    }
}
