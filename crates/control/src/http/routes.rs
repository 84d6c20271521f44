//! The whole route table of the API.
//!
//! Four groups: [`PRIVATE`] needs an account; [`EXEC`] one and its app's name; [`SECRET`] has its secret in the address;
//! [`PUBLIC`] tells nothing about anybody. Whatever is not here is Heroku's 404.

use axum::{
    Router,
    middleware::{from_fn, from_fn_with_state},
    routing::{MethodFilter, on},
};

use super::{
    account, acm, addons, apps, authorizations, buildpack_installations, builds, collaborators, config_vars,
    conventions, cron_jobs, domains, dyno_sizes, dynos, elsewhere, exec, features, formation, log_drains, log_sessions,
    monitors, regions, registry, releases, slugs, sni_endpoints, sources, stacks, streams, telemetry_drains, usage,
};
use crate::{git, state::Context};

macro_rules! routes {
    ($($(#[$doc:meta])* $list:ident $build:ident { $($method:ident $path:literal => $handler:path;)+ })+) => {$(
        $(#[$doc])*
        pub const $list: &[(&str, &str)] = &[$((stringify!($method), $path),)+];

        fn $build() -> Router<Context> {
            Router::new()$(.route($path, on(MethodFilter::$method, $handler)))+
        }
    )+};
}

routes! {
    /// Method and path of the routes that need an account.
    PRIVATE private {
        // Who one is.
        GET    "/account" => account::info;
        PATCH  "/account" => account::update;
        GET    "/account/rate-limits" => account::rate_limits;
        GET    "/account/features" => features::of_account;
        GET    "/account/features/{feature}" => features::account_info;
        PATCH  "/account/features/{feature}" => features::switch_account;
        GET    "/users/{user}" => account::user;
        PATCH  "/users/{user}" => account::update_user;
        GET    "/users/{user}/apps" => apps::of_user;
        POST   "/oauth/authorizations" => authorizations::create;
        GET    "/oauth/authorizations" => authorizations::list;
        GET    "/oauth/authorizations/{authorization}" => authorizations::info;
        PATCH  "/oauth/authorizations/{authorization}" => authorizations::update;
        DELETE "/oauth/authorizations/{authorization}" => authorizations::revoke;
        POST   "/oauth/authorizations/{authorization}/actions/regenerate-tokens" => authorizations::regenerate;
        GET    "/oauth/sessions" => authorizations::sessions;
        DELETE "/oauth/sessions/{session}" => authorizations::end_session;

        // Apps.
        POST   "/apps" => apps::create;
        GET    "/apps" => apps::list;
        POST   "/filters/apps" => apps::filter;
        GET    "/apps/{app}" => apps::info;
        PATCH  "/apps/{app}" => apps::update;
        DELETE "/apps/{app}" => apps::destroy;
        GET    "/apps/{app}/collaborators" => collaborators::list;
        POST   "/apps/{app}/collaborators" => collaborators::create;
        GET    "/apps/{app}/collaborators/{collaborator}" => collaborators::info;
        DELETE "/apps/{app}/collaborators/{collaborator}" => collaborators::remove;
        GET    "/apps/{app}/features" => features::of_app;
        GET    "/apps/{app}/features/{feature}" => features::app_info;
        PATCH  "/apps/{app}/features/{feature}" => features::switch_app;
        GET    "/apps/{app}/domains" => domains::list;
        POST   "/apps/{app}/domains" => domains::create;
        GET    "/apps/{app}/domains/{domain}" => domains::info;
        PATCH  "/apps/{app}/domains/{domain}" => domains::update;
        DELETE "/apps/{app}/domains/{domain}" => domains::remove;
        POST   "/apps/{app}/acm" => acm::enable;
        PATCH  "/apps/{app}/acm" => acm::refresh;
        DELETE "/apps/{app}/acm" => acm::disable;
        GET    "/apps/{app}/sni-endpoints" => sni_endpoints::list;
        POST   "/apps/{app}/sni-endpoints" => sni_endpoints::create;
        GET    "/apps/{app}/sni-endpoints/{sni_endpoint}" => sni_endpoints::info;
        PATCH  "/apps/{app}/sni-endpoints/{sni_endpoint}" => sni_endpoints::update;
        DELETE "/apps/{app}/sni-endpoints/{sni_endpoint}" => sni_endpoints::remove;

        // Code: sources, builds, slugs, releases.
        GET    "/apps/{app}/buildpack-installations" => buildpack_installations::list;
        PUT    "/apps/{app}/buildpack-installations" => buildpack_installations::replace;
        POST   "/sources" => sources::create;
        POST   "/apps/{app}/sources" => sources::create_of_app;
        POST   "/apps/{app}/builds" => builds::create;
        GET    "/apps/{app}/builds" => builds::list;
        GET    "/apps/{app}/builds/{build}" => builds::info;
        DELETE "/apps/{app}/build-cache" => builds::purge_cache;
        POST   "/apps/{app}/slugs" => slugs::create;
        GET    "/apps/{app}/slugs/{slug}" => slugs::info;
        GET    "/apps/{app}/config-vars" => config_vars::info;
        PATCH  "/apps/{app}/config-vars" => config_vars::update;
        GET    "/apps/{app}/releases" => releases::list;
        POST   "/apps/{app}/releases" => releases::create;
        GET    "/apps/{app}/releases/{release}" => releases::info;
        GET    "/apps/{app}/releases/{release}/config-vars" => config_vars::of_release;

        // Processes and their logs.
        GET    "/apps/{app}/formation" => formation::list;
        PATCH  "/apps/{app}/formation" => formation::batch_update;
        GET    "/apps/{app}/formation/{type}" => formation::info;
        PATCH  "/apps/{app}/formation/{type}" => formation::update;
        GET    "/apps/{app}/formation/{type}/monitors" => monitors::list;
        POST   "/apps/{app}/formation/{type}/monitors" => monitors::create;
        GET    "/apps/{app}/formation/{type}/monitors/{monitor}" => monitors::info;
        PATCH  "/apps/{app}/formation/{type}/monitors/{monitor}" => monitors::update;
        DELETE "/apps/{app}/formation/{type}/monitors/{monitor}" => monitors::remove;
        DELETE "/apps/{app}/formations/{type}" => dynos::restart_type;
        POST   "/apps/{app}/formations/{type}/actions/stop" => dynos::stop_type;
        GET    "/apps/{app}/dynos" => dynos::list;
        POST   "/apps/{app}/dynos" => dynos::create;
        DELETE "/apps/{app}/dynos" => dynos::restart_all;
        GET    "/apps/{app}/dynos/{dyno}" => dynos::info;
        DELETE "/apps/{app}/dynos/{dyno}" => dynos::restart;
        POST   "/apps/{app}/dynos/{dyno}" => dynos::run_inside;
        POST   "/apps/{app}/dynos/{dyno}/actions/stop" => dynos::stop;
        GET    "/apps/{app}/dynos/{dyno}/ports/{port}" => exec::forward;
        GET    "/apps/{app}/cron-jobs" => cron_jobs::list;
        POST   "/apps/{app}/cron-jobs" => cron_jobs::create;
        GET    "/apps/{app}/cron-jobs/{job}" => cron_jobs::info;
        PATCH  "/apps/{app}/cron-jobs/{job}" => cron_jobs::update;
        DELETE "/apps/{app}/cron-jobs/{job}" => cron_jobs::remove;
        GET    "/apps/{app}/cron-jobs/{job}/runs" => cron_jobs::runs;
        POST   "/apps/{app}/cron-jobs/{job}/runs" => cron_jobs::run;
        GET    "/apps/{app}/cron-jobs/{job}/runs/{run}" => cron_jobs::run_info;
        POST   "/apps/{app}/log-sessions" => log_sessions::create;
        GET    "/apps/{app}/log-drains" => log_drains::list;
        POST   "/apps/{app}/log-drains" => log_drains::create;
        GET    "/apps/{app}/log-drains/{drain}" => log_drains::info;
        DELETE "/apps/{app}/log-drains/{drain}" => log_drains::remove;
        GET    "/apps/{app}/telemetry-drains" => telemetry_drains::list;
        POST   "/telemetry-drains" => telemetry_drains::create;
        GET    "/telemetry-drains/{drain}" => telemetry_drains::info;
        PATCH  "/telemetry-drains/{drain}" => telemetry_drains::update;
        DELETE "/telemetry-drains/{drain}" => telemetry_drains::remove;

        // Add-ons.
        GET    "/addons" => addons::list;
        GET    "/addons/{addon}" => addons::info;
        GET    "/addons/{addon}/addon-attachments" => addons::attachments_of_addon;
        GET    "/addon-attachments" => addons::attachments;
        POST   "/addon-attachments" => addons::attach;
        GET    "/addon-attachments/{attachment}" => addons::attachment_info;
        DELETE "/addon-attachments/{attachment}" => addons::detach;
        GET    "/apps/{app}/addons" => addons::of_app;
        POST   "/apps/{app}/addons" => addons::create;
        GET    "/apps/{app}/addons/{addon}" => addons::app_info;
        PATCH  "/apps/{app}/addons/{addon}" => addons::update;
        DELETE "/apps/{app}/addons/{addon}" => addons::remove;
        GET    "/apps/{app}/addon-attachments" => addons::attachments_of_app;
        GET    "/apps/{app}/addon-attachments/{attachment}" => addons::attachment_of_app;
        POST   "/actions/addons/resolve" => addons::resolve_addon;
        POST   "/actions/addon-attachments/resolve" => addons::resolve_attachment;

        // Additions to Heroku's API.
        GET    "/usage" => usage::of_account;
        GET    "/apps/{app}/usage" => usage::of_app;

        // What there is on this platform.
        GET    "/apps/{app}/available-stacks" => stacks::of_app;
        GET    "/dyno-sizes" => dyno_sizes::list;
        GET    "/dyno-sizes/{size}" => dyno_sizes::info;
        GET    "/apps/{app}/available-dyno-sizes" => dyno_sizes::of_app;

        // What there is none of, but clients ask for.
        GET    "/teams" => elsewhere::none;
        GET    "/enterprise-accounts" => elsewhere::none;
        GET    "/pipelines" => elsewhere::none;
        GET    "/spaces" => elsewhere::none;
        GET    "/account/keys" => elsewhere::none;
        GET    "/account/app-transfers" => elsewhere::none;
        GET    "/oauth/clients" => elsewhere::none;
        GET    "/apps/{app}/webhooks" => elsewhere::none_of_app;
        GET    "/apps/{app}/pipeline-couplings" => elsewhere::no_coupling;
        GET    "/addons/{addon}/log-drains" => elsewhere::no_addon;
        PUT    "/addons/{addon}/log-drains/{drain}" => elsewhere::no_addon;
    }

    /// Method and path of the exec manager's routes, whose credentials name the app.
    EXEC exec_manager {
        GET    "/api/v2" => exec::list;
        PUT    "/api/v2/{dyno}" => exec::enter;
    }

    /// Method and path of the routes whose address is the secret.
    SECRET secret {
        GET    "/logs/stream" => log_sessions::stream;
        PUT    "/sources/{source}" => sources::put;
        GET    "/sources/{source}" => sources::get;
        PUT    "/slugs/{slug}" => slugs::put;
        GET    "/slugs/{slug}" => slugs::get;
        GET    "/streams/{kind}/{app}/{id}/{tag}" => streams::follow;
    }

    /// Method and path of the routes for everybody.
    PUBLIC public {
        GET    "/schema" => elsewhere::schema;
        GET    "/addon-services" => addons::services;
        GET    "/addon-services/{service}" => addons::service_info;
        GET    "/addon-services/{service}/plans" => addons::plans;
        GET    "/addon-services/{service}/plans/{plan}" => addons::plan_info;
        GET    "/plans/{plan}" => addons::plan_info;
        GET    "/regions" => regions::list;
        GET    "/regions/{region}" => regions::info;
        GET    "/stacks" => stacks::list;
        GET    "/stacks/{stack}" => stacks::info;
        GET    "/buildpacks" => registry::list;
        GET    "/buildpacks/{buildpack}" => registry::info;
        GET    "/buildpacks/{buildpack}/revisions" => registry::revisions;
        GET    "/buildpacks/{buildpack}/readme" => registry::readme;
        GET    "/api/v4/current-status" => elsewhere::status;
    }
}

/// No route: every request is told that there are `most` connections already.
pub fn crowded(most: u64) -> Router {
    Router::new().fallback(elsewhere::crowded).layer(from_fn(conventions::every)).with_state(most)
}

/// Every route.
pub fn table(context: Context) -> Router {
    private()
        .route_layer(from_fn_with_state(context.clone(), conventions::authenticated))
        .merge(exec_manager())
        .merge(secret())
        .merge(public())
        .merge(git::routes())
        .fallback(elsewhere::unknown)
        .method_not_allowed_fallback(elsewhere::unknown)
        .layer(from_fn(conventions::every))
        .with_state(context)
}
