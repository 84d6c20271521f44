//! Connections to `run/logs.sock`: the first frame says what each is for.

use std::{io, sync::Arc, time::Duration};

use dozen_api::{frame, logs::Hello};
use tokio::net::{UnixListener, UnixStream};

use crate::{Role, drain, ingest, session, shims};

/// Accepts connections for ever; each is served by a task that ends with the role.
pub(crate) async fn accept(role: &Arc<Role>, listener: UnixListener) {
    loop {
        match listener.accept().await {
            Ok((connection, _)) => {
                let role = role.clone();
                tokio::spawn(async move {
                    tokio::select! {
                        () = role.stop.cancelled() => {}
                        served = serve(&role, connection) => match served {
                            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                                tracing::warn!(%error, "a connection to the logs role makes no sense");
                            }
                            Err(error) => tracing::debug!(%error, "a connection to the logs role ended"),
                            Ok(()) => {}
                        },
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection to the logs role");
                tokio::time::sleep(Duration::from_millis(100)).await; // out of files: some will be closed
            }
        }
    }
}

async fn serve(role: &Arc<Role>, mut connection: UnixStream) -> io::Result<()> {
    match frame::read(&mut connection).await? {
        None => Ok(()),
        Some(Hello::Ingest { role: name, sender }) => {
            tracing::debug!(role = name, %sender, "lines come from a role");
            ingest::serve(role, connection, sender).await
        }
        Some(Hello::Session(wanted)) => session::serve(role, connection, wanted).await,
        Some(Hello::Dyno(dyno)) => {
            shims::add(role, dyno);
            frame::write_bytes(&mut connection, &[]).await
        }
        Some(Hello::Drains(drains)) => {
            if let Err(error) = drain::replace(role, drains).await {
                tracing::warn!(%error, "cannot keep which drains there are");
                return Ok(());
            }
            frame::write_bytes(&mut connection, &[]).await
        }
        Some(Hello::Remove(app)) => {
            match role.channels.remove(app) {
                Ok(()) => tracing::info!(%app, "removed an app's log history"),
                Err(error) => {
                    tracing::warn!(%app, %error, "cannot remove an app's log history");
                    return Ok(());
                }
            }
            frame::write_bytes(&mut connection, &[]).await
        }
    }
}
