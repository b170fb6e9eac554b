//! Policies of functions: kept and shown. They grant nothing: an identity acts within its account.

use api::lambda::{
    AddPermission, AddPermissionInput, AddPermissionOutput, GetPolicy, GetPolicyInput, GetPolicyOutput,
    RemovePermission, RemovePermissionInput, RemovePermissionOutput,
};
use serde_json::{Value, json};

use super::error::{Problem, Result};
use super::find;
use super::record::FunctionRecord;
use crate::sagemaker::fields;
use crate::{Cx, Registry};

/// Registers the operations.
pub fn routes(registry: &mut Registry) {
    registry.on::<AddPermission, _, _, _>(add_permission);
    registry.on::<RemovePermission, _, _, _>(remove_permission);
    registry.on::<GetPolicy, _, _, _>(get_policy);
}

async fn add_permission(cx: Cx, input: AddPermissionInput) -> Result<AddPermissionOutput> {
    let honoured = [
        "FunctionName",
        "StatementId",
        "Action",
        "Principal",
        "SourceArn",
        "SourceAccount",
        "PrincipalOrgID",
        "RevisionId",
        "Qualifier",
    ];
    fields::check(&cx.input, &honoured)?;
    let found = find(&cx, &input.function_name, input.qualifier.as_deref()).await?;
    let principal = if input.principal.contains('.') {
        json!({"Service": input.principal})
    } else {
        json!({"AWS": input.principal})
    };
    let mut statement = json!({
        "Sid": input.statement_id,
        "Effect": "Allow",
        "Principal": principal,
        "Action": input.action,
        "Resource": found.arn,
    });
    let mut conditions = serde_json::Map::new();
    if let Some(arn) = input.source_arn {
        conditions.insert("ArnLike".into(), json!({"AWS:SourceArn": arn}));
    }
    let mut equal = serde_json::Map::new();
    equal.extend(input.source_account.map(|account| ("AWS:SourceAccount".to_owned(), account.into())));
    equal.extend(input.principal_org_id.map(|id| ("aws:PrincipalOrgID".to_owned(), id.into())));
    if !equal.is_empty() {
        conditions.insert("StringEquals".into(), Value::Object(equal));
    }
    if !conditions.is_empty() {
        statement["Condition"] = Value::Object(conditions);
    }
    let (id, added) = (input.statement_id, statement.clone());
    edit(&cx, found.key, input.revision_id, move |statements| {
        if statements.iter().any(|known| known["Sid"] == id.as_str()) {
            let text = format!("The statement id ({id}) provided already exists. Please provide a new statement id, or remove the existing statement.");
            return Err(Problem::Code("ResourceConflictException", text));
        }
        statements.push(added);
        Ok(())
    })
    .await?;
    Ok(AddPermissionOutput { statement: Some(statement.to_string()) })
}

async fn remove_permission(cx: Cx, input: RemovePermissionInput) -> Result<RemovePermissionOutput> {
    let found = find(&cx, &input.function_name, input.qualifier.as_deref()).await?;
    let id = input.statement_id;
    edit(&cx, found.key, input.revision_id, move |statements| {
        let before = statements.len();
        statements.retain(|known| known["Sid"] != id.as_str());
        if statements.len() == before {
            let text = format!("Statement {id} is not found in resource policy.");
            return Err(Problem::Code("ResourceNotFoundException", text));
        }
        Ok(())
    })
    .await?;
    Ok(RemovePermissionOutput::default())
}

async fn edit(
    cx: &Cx,
    key: store::resources::ResourceKey,
    revision_id: Option<String>,
    change: impl FnOnce(&mut Vec<Value>) -> Result<()> + Send + 'static,
) -> Result<()> {
    let now_ms = cx.state.clock.now_ms();
    let edited = cx.state.database.write(move |session| {
        let resource = session.resource(&key)?;
        let record = FunctionRecord::read(&resource);
        let mut record = record.map_err(|error| store::Error::Invalid(error.to_string()))?;
        if revision_id.is_some_and(|wanted| wanted != record.revision_id) {
            let text = "The Revision Id provided does not match the latest Revision Id.";
            return Ok(Err(Problem::Code("PreconditionFailedException", text.into())));
        }
        if let Err(problem) = change(&mut record.statements) {
            return Ok(Err(problem));
        }
        session.update_resource(&key, now_ms, |resource| {
            resource.document = record.to_value();
            Ok(())
        })?;
        Ok(Ok(()))
    });
    edited.await?
}

async fn get_policy(cx: Cx, input: GetPolicyInput) -> Result<GetPolicyOutput> {
    let found = find(&cx, &input.function_name, input.qualifier.as_deref()).await?;
    let record = FunctionRecord::read(&found)?;
    if record.statements.is_empty() {
        let text = "The resource you requested does not exist.";
        return Err(Problem::Code("ResourceNotFoundException", text.into()));
    }
    let policy = json!({"Version": "2012-10-17", "Id": "default", "Statement": record.statements});
    Ok(GetPolicyOutput { policy: Some(policy.to_string()), revision_id: Some(record.revision_id) })
}
