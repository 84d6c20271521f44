//! Certificates of apps' domains.

use dozen_api::routes::{App as Entry, Certificate, Dialogue};
use dozen_control::{
    acme::{self, Issued},
    ops,
    routes_feed::Feed,
    store::managed::Managed,
};
use dozen_domain::config::Secret;
use rcgen::{CertificateParams, DnType, KeyPair, date_time_ymd};
use serde_json::{Value, json};

use crate::api::Api;

/// Chain and key, as files that people have.
fn made(names: &[&str], until: i32) -> Value {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut parameters = CertificateParams::new(names.clone()).expect("names");
    parameters.distinguished_name.push(DnType::CommonName, names[0].as_str());
    parameters.not_before = date_time_ymd(2020, 1, 1);
    parameters.not_after = date_time_ymd(until, 1, 1);
    let key = KeyPair::generate().expect("a key");
    let certificate = parameters.self_signed(&key).expect("a certificate");
    json!({"certificate_chain": certificate.pem(), "private_key": key.serialize_pem()})
}

async fn told(api: &Api, app: dozen_domain::ids::AppId) -> Entry {
    let feed = Feed::new(api.context.clone());
    feed.refresh(app).await.expect("an entry");
    feed.app(app).expect("the app")
}

fn hosts(entry: &Entry) -> Vec<&[String]> {
    entry.edge.certificates.iter().map(|Certificate { hosts, .. }| hosts.as_slice()).collect()
}

#[tokio::test]
async fn a_certificate_is_added_shown_changed_and_removed() {
    let mut api = Api::new().await;
    let app = api.app("shop").await;
    api.post("/apps/shop/domains", json!({"hostname": "www.example.com", "sni_endpoint": null})).await.is(201);
    api.nudged();
    let pair = made(&["www.example.com", "example.com"], 2030);
    let added = api.post("/apps/shop/sni-endpoints", pair.clone()).await.is(201).json;
    assert_eq!(api.nudged(), [app.id]);
    let name = added["name"].as_str().expect("a name");
    let certificate = &added["ssl_cert"];
    assert_eq!(certificate["cert_domains"], json!(["www.example.com", "example.com"]));
    assert_eq!(certificate["expires_at"], "2030-01-01T00:00:00Z");
    assert_eq!((&certificate["self_signed?"], &certificate["ca_signed?"]), (&json!(true), &json!(false)));
    assert_eq!((&certificate["acm"], &certificate["subject"]), (&json!(false), &certificate["issuer"]));
    assert_eq!(added["certificate_chain"], pair["certificate_chain"]);
    // The key is nowhere to be had.
    let path = format!("/apps/shop/sni-endpoints/{name}");
    assert!(!api.get(&path).await.is(200).text.contains("PRIVATE"));
    let kept = std::fs::read(api.directory.path().join("dozen.db-wal")).expect("the log of the database");
    assert!(!kept.windows(11).any(|window| window == b"PRIVATE KEY"));
    // The domain that it is for has it, and the router is told both.
    let domain = api.get("/apps/shop/domains/www.example.com").await.json;
    assert_eq!(domain["sni_endpoint"]["name"], name);
    assert_eq!(added["domains"], json!([domain["id"]]));
    let entry = told(&api, app.id).await;
    assert_eq!(hosts(&entry), [["www.example.com".to_owned()]]);
    assert_eq!(entry.edge.certificates[0].key.expose(), pair["private_key"].as_str().expect("a key"));

    let renewed = api.patch(&path, made(&["www.example.com"], 2031)).await.is(200).json;
    assert_eq!((&renewed["name"], &renewed["ssl_cert"]["expires_at"]), (&json!(name), &json!("2031-01-01T00:00:00Z")));
    let other = api.patch(&path, made(&["other.example.com"], 2031)).await.fails(422, "invalid_params");
    let words = format!("{name} is a certificate for other.example.com, not for www.example.com. Add one that is.");
    assert_eq!(other.json["message"], words);

    api.delete(&path).await.is(200);
    api.get(&path).await.fails(404, "not_found");
    assert_eq!(api.get("/apps/shop/domains/www.example.com").await.json["sni_endpoint"], Value::Null);
    assert!(told(&api, app.id).await.edge.certificates.is_empty());
    let lines = api.lines();
    for verb in ["Add", "Update", "Remove"] {
        let line = format!("app[api]: {verb} certificate {name} by user ");
        assert!(lines.iter().any(|found| found.starts_with(&line)), "{lines:?}");
    }
}

#[tokio::test]
async fn what_cannot_be_served_is_refused_with_what_to_do() {
    let api = Api::new().await;
    api.app("shop").await;
    let refused = async |chain: &Value, key: &Value| {
        let body = json!({"certificate_chain": chain, "private_key": key});
        let answer = api.post("/apps/shop/sni-endpoints", body).await.fails(422, "invalid_params");
        answer.json["message"].as_str().expect("words").to_owned()
    };
    let (one, two, old) =
        (made(&["a.example.com"], 2030), made(&["b.example.com"], 2030), made(&["c.example.com"], 2021));
    let words = refused(&one["certificate_chain"], &two["private_key"]).await;
    assert!(words.starts_with("The private key does not belong to the certificate."), "{words}");
    let words = refused(&old["certificate_chain"], &old["private_key"]).await;
    assert!(words.starts_with("The certificate expired on 2021-01-01T00:00:00Z."), "{words}");
    let words = refused(&json!("nothing"), &one["private_key"]).await;
    assert!(words.starts_with("The certificate chain holds no certificate"), "{words}");
    let chain = format!(
        "{}{}",
        one["certificate_chain"].as_str().expect("a chain"),
        two["certificate_chain"].as_str().expect("a chain")
    );
    let words = refused(&json!(chain), &two["private_key"]).await;
    assert!(words.starts_with("The private key belongs to certificate 2 of the chain."), "{words}");
    api.post("/apps/shop/sni-endpoints", json!({})).await.fails(422, "invalid_params");
    assert_eq!(api.get("/apps/shop/sni-endpoints").await.is(200).json, json!([]));
}

#[tokio::test]
async fn a_domain_takes_the_certificate_that_is_named() {
    let api = Api::new().await;
    let app = api.app("shop").await;
    let add = async |names: &[&str]| {
        let added = api.post("/apps/shop/sni-endpoints", made(names, 2030)).await.is(201);
        added.json["name"].as_str().expect("a name").to_owned()
    };
    let (wild, own) = (add(&["*.example.com"]).await, add(&["www.example.com"]).await);
    let domain = async |host: &str, certificate: &Value| {
        api.post("/apps/shop/domains", json!({"hostname": host, "sni_endpoint": certificate})).await
    };
    assert_eq!(domain("www.example.com", &json!(own)).await.is(201).json["sni_endpoint"]["name"], json!(own));
    // Without a word, one that fits is taken.
    assert_eq!(domain("api.example.com", &Value::Null).await.is(201).json["sni_endpoint"]["name"], json!(wild));
    assert_eq!(domain("example.com", &Value::Null).await.is(201).json["sni_endpoint"], Value::Null);
    domain("example.org", &json!(own)).await.fails(422, "invalid_params");
    domain("x.example.com", &json!("nothing")).await.fails(404, "not_found");

    let choose = async |host: &str, certificate: &Value| {
        api.patch(&format!("/apps/shop/domains/{host}"), json!({"sni_endpoint": certificate})).await
    };
    assert_eq!(choose("www.example.com", &json!(wild)).await.is(200).json["sni_endpoint"]["name"], json!(wild));
    choose("example.com", &json!(wild)).await.fails(422, "invalid_params");
    choose("shop.localhost", &json!(wild)).await.fails(422, "invalid_params");
    assert_eq!(hosts(&told(&api, app.id).await).concat(), ["api.example.com", "www.example.com"]);
    assert_eq!(choose("www.example.com", &Value::Null).await.is(200).json["sni_endpoint"], Value::Null);
}

#[tokio::test]
async fn anothers_certificates_are_not_there() {
    let api = Api::new().await;
    api.app("shop").await;
    api.app("other").await;
    let added = api.post("/apps/shop/sni-endpoints", made(&["www.example.com"], 2030)).await.is(201).json;
    let id = added["id"].as_str().expect("an id");
    api.get(&format!("/apps/shop/sni-endpoints/{id}")).await.is(200);
    api.get(&format!("/apps/other/sni-endpoints/{id}")).await.fails(404, "not_found");
    let body = json!({"hostname": "www.example.com", "sni_endpoint": id});
    api.post("/apps/other/domains", body).await.fails(404, "not_found");
}

#[tokio::test]
async fn switches_of_the_edge_and_of_the_way_to_dynos_reach_the_router() {
    let api = Api::new().await;
    let app = api.app("shop").await;
    for feature in ["http-session-affinity", "http-redirect-to-https"] {
        api.patch(&format!("/apps/shop/features/{feature}"), json!({"enabled": true})).await.is(200);
    }
    let edge = told(&api, app.id).await.edge;
    assert!(edge.session_affinity && edge.https_redirect);
    assert_eq!(told(&api, app.id).await.dialogue, Dialogue::default());
    for feature in ["http-disable-keepalive-to-dyno", "http2-to-dyno", "http-end-to-end-continue"] {
        api.patch(&format!("/apps/shop/features/{feature}"), json!({"enabled": true})).await.is(200);
    }
    let switched = Dialogue { keep_alive: false, http2: true, end_to_end_continue: true };
    assert_eq!(told(&api, app.id).await.dialogue, switched);
}

fn issued(names: &[&str], until: i32) -> Issued {
    let pair = made(names, until);
    let text = |field: &str| pair[field].as_str().expect("text").to_owned();
    Issued { chain: text("certificate_chain"), key: Secret::new(text("private_key")) }
}

async fn due(api: &Api) -> Vec<Managed> {
    ops::managed::due(&api.context, api.context.now()).await.expect("domains")
}

#[tokio::test]
async fn a_managed_certificate_is_got_renewed_and_given_up() {
    let api = Api::new().await;
    api.app("shop").await;
    let status = async |host: &str| api.get(&format!("/apps/shop/domains/{host}")).await.json["acm_status"].clone();
    for host in ["www.example.com", "own.example.com"] {
        api.post("/apps/shop/domains", json!({"hostname": host, "sni_endpoint": null})).await.is(201);
    }
    api.post("/apps/shop/sni-endpoints", made(&["own.example.com"], 2030)).await.is(201);
    api.patch("/apps/shop/acm", json!({"acm_refresh": true})).await.fails(422, "invalid_params");
    assert!(due(&api).await.is_empty());
    assert_eq!(api.post("/apps/shop/acm", json!({})).await.is(200).json["acm"], true);
    assert_eq!((status("www.example.com").await, status("shop.localhost").await), (json!("pending"), Value::Null));
    // A domain with a certificate of its owner's keeps that.
    assert_eq!(status("own.example.com").await, "cert issued");
    let [managed] = due(&api).await.try_into().expect("one domain");
    assert_eq!(managed.hostname, "www.example.com");

    let failure = acme::Error::Refused("nobody there".to_owned());
    ops::managed::failed(&api.context, &managed, &failure).await.expect("a record");
    let domain = api.get("/apps/shop/domains/www.example.com").await.json;
    assert_eq!(domain["acm_status"], "failing");
    assert!(domain["acm_status_reason"].as_str().is_some_and(|reason| reason.contains("nobody there")), "{domain}");
    assert!(due(&api).await.is_empty(), "not before its time");
    api.patch("/apps/shop/acm", json!({"acm_refresh": true})).await.is(200);
    let [managed] = due(&api).await.try_into().expect("asked for again");

    let until = ops::managed::issued(&api.context, &managed, &issued(&["www.example.com"], 2028)).await;
    assert!(until.expect("a database").is_ok());
    assert_eq!(status("www.example.com").await, "cert issued");
    let managed_one = async || {
        let all = api.get("/apps/shop/sni-endpoints").await.json;
        all.as_array().and_then(|all| all.iter().find(|one| one["ssl_cert"]["acm"] == true).cloned()).expect("one")
    };
    let first = managed_one().await;
    let path = format!("/apps/shop/sni-endpoints/{}", first["name"].as_str().expect("a name"));
    api.delete(&path).await.fails(422, "invalid_params");
    api.patch(&path, made(&["www.example.com"], 2030)).await.fails(422, "invalid_params");

    // 2028 is under a year away; thirty days before it is time.
    assert!(due(&api).await.is_empty());
    api.clock.advance(330 * 86_400);
    let [managed] = due(&api).await.try_into().expect("time for another");
    let unusable = ops::managed::issued(&api.context, &managed, &issued(&["www.example.com"], 2027)).await;
    assert!(matches!(unusable.expect("a database"), Err(acme::Error::Unusable(_))), "it has expired");
    assert!(
        ops::managed::issued(&api.context, &managed, &issued(&["www.example.com"], 2029))
            .await
            .expect("a database")
            .is_ok()
    );
    let second = managed_one().await;
    assert_eq!((&first["id"], &first["name"]), (&second["id"], &second["name"]));
    assert_eq!(second["ssl_cert"]["expires_at"], "2029-01-01T00:00:00Z");

    // What comes for a domain that has gone meanwhile is not kept.
    api.delete("/apps/shop/domains/www.example.com").await.is(200);
    assert!(
        ops::managed::issued(&api.context, &managed, &issued(&["www.example.com"], 2030))
            .await
            .expect("a database")
            .is_ok()
    );
    assert_eq!(api.get("/apps/shop/sni-endpoints").await.json.as_array().map(Vec::len), Some(1));
    assert_eq!(api.delete("/apps/shop/acm").await.is(200).json["acm"], false);
    assert_eq!(status("own.example.com").await, Value::Null);
}
