//! The installation itself: its admin token.

use axum::Json as Answer;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Api;
use super::in_tenant::Repeatable;
use crate::control::bootstrap;
use crate::control::gate::Gated as _;
use crate::control::problem::Problem;

pub(super) fn operations(router: OpenApiRouter<Api>) -> OpenApiRouter<Api> {
    router.operation(routes!(rotate_admin_token))
}

/// The admin token that is good from now on: this is the only time that it is shown.
#[derive(Serialize, ToSchema)]
struct AdminToken {
    /// The token.
    token: String,
}

/// Replace the admin token
///
/// The old one is refused at once here, and within moments by every replica. The file `admin.token` of a data folder is
/// not touched: whoever asks keeps the token, as `tollgate admin-token rotate` does.
#[utoipa::path(post, path = "/api/v1/platform/admin-token/rotate", tag = "own", params(Repeatable),
    responses((status = 200, description = "The new token.", body = AdminToken)))]
async fn rotate_admin_token(State(api): State<Api>) -> Result<Answer<AdminToken>, Problem> {
    let token = bootstrap::replace(api.store()?, api.authenticator()).await?;
    Ok(Answer(AdminToken { token: token.expose().clone() }))
}
