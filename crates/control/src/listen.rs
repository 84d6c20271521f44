//! Serves the API on its listeners until shutdown.

use std::future::Future;

use crate::{Context, Error, http::routes, reconcile::Nudges, state::Listeners};

/// Serves until `shutdown` resolves.
///
/// # Errors
/// When a listener cannot be used.
pub async fn serve(
    context: Context,
    listeners: Listeners,
    nudges: Nudges,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), Error> {
    let _ = nudges;
    let error = |source| Error::Io { operation: "serve the API".to_owned(), source };
    listeners.api.set_nonblocking(true).map_err(error)?;
    let api = tokio::net::TcpListener::from_std(listeners.api).map_err(error)?;
    axum::serve(api, routes::table(context)).with_graceful_shutdown(shutdown).await.map_err(error)
}
