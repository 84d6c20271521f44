//! Where an app answers and whether: custom domains, maintenance, unknown hosts, the headers that dynos get.

use dozen_testkit::{App, LONG, wait_until};

use crate::platform;

#[test]
fn custom_domains_lead_to_the_app() {
    let platform = platform().start();
    let app = App::plain(&platform, "named");
    let _pushed = app.push();
    drop(app.heroku(&["domains"]).says("named.localhost"));
    drop(app.heroku(&["domains:add", "www.example.com"]));
    wait_until("the domain to be routed", LONG, || platform.http("www.example.com", "/").status == 200);
    drop(app.heroku(&["domains"]).says("www.example.com"));
    drop(app.heroku(&["domains:info", "www.example.com"]));
    let other = App::create(&platform, "other");
    drop(other.try_heroku(&["domains:add", "www.example.com"]).failure());
    drop(app.heroku(&["domains:remove", "www.example.com"]));
    wait_until("the domain to be gone", LONG, || platform.http("www.example.com", "/").status == 404);
    assert_eq!(platform.http("nobody.localhost", "/").status, 404);
}

#[test]
fn maintenance_shows_a_page_and_ends() {
    let platform = platform().start();
    let app = App::plain(&platform, "maintained");
    let _pushed = app.push();
    drop(app.heroku(&["maintenance"]).says("off"));
    drop(app.heroku(&["maintenance:on"]));
    wait_until("maintenance", LONG, || app.get("/").status == 503);
    app.wait_for_log("code=H80");
    drop(app.heroku(&["maintenance:off"]));
    let _answer = app.wait_for_answer();
}

#[test]
fn a_request_reaches_the_dyno_with_what_the_router_adds() {
    let platform = platform().start();
    let app = App::plain(&platform, "headed");
    assert_eq!(app.get("/").status, 503, "blank");
    let _pushed = app.push();
    let headers: serde_json::Value = serde_json::from_str(&app.get("/headers").body).expect("JSON");
    for (name, value) in [("x-forwarded-proto", "http"), ("x-forwarded-for", "127.0.0.1"), ("host", "headed.localhost")]
    {
        assert_eq!(headers[name], value, "{headers}");
    }
    for name in ["x-request-id", "x-request-start", "x-forwarded-port", "via"] {
        assert!(headers[name].is_string(), "{name}: {headers}");
    }
}

#[test]
fn features_can_be_listed_and_turned_on() {
    let platform = platform().start();
    let app = App::create(&platform, "featured");
    let (status, features) = platform.api("GET", "/apps/featured/features", None);
    assert_eq!(status, 200);
    drop(app.heroku(&["features"]));
    if let Some(name) = features[0]["name"].as_str() {
        drop(app.heroku(&["features:info", name]));
        drop(app.heroku(&["features:enable", name]));
        drop(app.heroku(&["features:disable", name]));
    }
}
