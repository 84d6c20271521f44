//! `/apps/{app}/formation/{type}/monitors`: autoscaling. The official client asks for it at a host of its own.

use axum::extract::{Path, State};
use dozen_api::{clock::rfc3339_seconds, platform::monitor::Monitor as View};
use dozen_domain::autoscale::Measure;

use super::{
    answer::{Reply, Result},
    body::Json,
    member::Member,
};
use crate::{
    ops::{self, monitors::Change},
    state::Context,
    store::monitors::Monitor,
};

/// App and process type.
type OfType = Path<(String, String)>;
/// App, process type and monitor.
type One = Path<(String, String, String)>;

/// `GET /apps/{app}/formation/{type}/monitors`
pub async fn list(State(context): State<Context>, member: Member, Path((_, of)): OfType) -> Result {
    let all = ops::monitors::list(&context, &member.app, &of).await?;
    Ok(Reply::ok(&all.iter().map(view).collect::<Vec<_>>()))
}

/// `POST /apps/{app}/formation/{type}/monitors`
pub async fn create(
    State(context): State<Context>,
    member: Member,
    Path((_, of)): OfType,
    Json(change): Json<Change>,
) -> Result {
    let one = ops::monitors::create(&context, &member.app, &member.account, &of, change).await?;
    Ok(Reply::created(&view(&one)))
}

/// `GET /apps/{app}/formation/{type}/monitors/{monitor}`
pub async fn info(State(context): State<Context>, member: Member, Path((_, of, id)): One) -> Result {
    Ok(Reply::ok(&view(&ops::monitors::find(&context, &member.app, &of, &id).await?)))
}

/// `PATCH /apps/{app}/formation/{type}/monitors/{monitor}`
pub async fn update(
    State(context): State<Context>,
    member: Member,
    Path((_, of, id)): One,
    Json(change): Json<Change>,
) -> Result {
    let one = ops::monitors::update(&context, &member.app, &member.account, (&of, &id), change).await?;
    Ok(Reply::ok(&view(&one)))
}

/// `DELETE /apps/{app}/formation/{type}/monitors/{monitor}`
pub async fn remove(State(context): State<Context>, member: Member, Path((_, of, id)): One) -> Result {
    Ok(Reply::ok(&view(&ops::monitors::remove(&context, &member.app, &member.account, &of, &id).await?)))
}

fn view(one: &Monitor) -> View {
    let (Measure::ResponseTime(value) | Measure::Queue(value)) = one.policy.measure;
    View {
        action_type: ops::monitors::SCALE.to_owned(),
        app_id: one.app.0,
        created_at: rfc3339_seconds(one.created_at),
        id: one.id.0,
        is_active: one.active,
        max_quantity: one.policy.max,
        min_quantity: one.policy.min,
        name: ops::monitors::name(one.policy.measure).to_owned(),
        notification_channels: one.notifies.then(|| ops::monitors::TO_APP.to_owned()).into_iter().collect(),
        notification_period: one.notification_minutes,
        op: ops::monitors::AT_LEAST.to_owned(),
        period: ops::monitors::PERIOD,
        process_type: one.process_type.to_string(),
        updated_at: rfc3339_seconds(one.updated_at),
        value,
    }
}
