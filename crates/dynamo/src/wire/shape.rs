//! The requests of the operations that are built, and their parts, as botocore's model of the service
//! (`DynamoDB_20120810`) names them. Members that are not built yet and must be refused are here too.

use super::attribute::{Attribute, AttributeMap};
use super::decode::{InnerList, InnerMap, Map, structure};

structure! {
    /// A condition of Expected.
    ExpectedAttributeValue {
        "AttributeValueList" => attribute_value_list: Vec<Attribute>,
        "ComparisonOperator" => comparison_operator: String,
        "Exists" => exists: bool,
        "Value" => value: Attribute,
    }
}

structure! {
    /// A condition of KeyConditions, QueryFilter and ScanFilter.
    Condition {
        "AttributeValueList" => attribute_value_list: Vec<Attribute>,
        "ComparisonOperator" => comparison_operator: String,
    }
}

structure! {
    AttributeValueUpdate {
        "Action" => action: String,
        "Value" => value: Attribute,
    }
}

structure! {
    GetItemRequest {
        "TableName" => table_name: String,
        "Key" => key: AttributeMap,
        "AttributesToGet" => attributes_to_get: Vec<String>,
        "ConsistentRead" => consistent_read: bool,
        "ReturnConsumedCapacity" => return_consumed_capacity: String,
        "ProjectionExpression" => projection_expression: String,
        "ExpressionAttributeNames" => expression_attribute_names: Map<String>,
    }
}

structure! {
    PutItemRequest {
        "TableName" => table_name: String,
        "Item" => item: AttributeMap,
        "Expected" => expected: Map<ExpectedAttributeValue>,
        "ConditionalOperator" => conditional_operator: String,
        "ReturnValues" => return_values: String,
        "ReturnConsumedCapacity" => return_consumed_capacity: String,
        "ReturnItemCollectionMetrics" => return_item_collection_metrics: String,
        "ReturnValuesOnConditionCheckFailure" => return_values_on_condition_check_failure: String,
        "ConditionExpression" => condition_expression: String,
        "ExpressionAttributeNames" => expression_attribute_names: Map<String>,
        "ExpressionAttributeValues" => expression_attribute_values: Map<Attribute>,
    }
}

structure! {
    DeleteItemRequest {
        "TableName" => table_name: String,
        "Key" => key: AttributeMap,
        "Expected" => expected: Map<ExpectedAttributeValue>,
        "ConditionalOperator" => conditional_operator: String,
        "ReturnValues" => return_values: String,
        "ReturnConsumedCapacity" => return_consumed_capacity: String,
        "ReturnItemCollectionMetrics" => return_item_collection_metrics: String,
        "ReturnValuesOnConditionCheckFailure" => return_values_on_condition_check_failure: String,
        "ConditionExpression" => condition_expression: String,
        "ExpressionAttributeNames" => expression_attribute_names: Map<String>,
        "ExpressionAttributeValues" => expression_attribute_values: Map<Attribute>,
    }
}

structure! {
    UpdateItemRequest {
        "TableName" => table_name: String,
        "Key" => key: AttributeMap,
        "AttributeUpdates" => attribute_updates: Map<AttributeValueUpdate>,
        "Expected" => expected: Map<ExpectedAttributeValue>,
        "ConditionalOperator" => conditional_operator: String,
        "ReturnValues" => return_values: String,
        "ReturnConsumedCapacity" => return_consumed_capacity: String,
        "ReturnItemCollectionMetrics" => return_item_collection_metrics: String,
        "ReturnValuesOnConditionCheckFailure" => return_values_on_condition_check_failure: String,
        "UpdateExpression" => update_expression: String,
        "ConditionExpression" => condition_expression: String,
        "ExpressionAttributeNames" => expression_attribute_names: Map<String>,
        "ExpressionAttributeValues" => expression_attribute_values: Map<Attribute>,
    }
}

structure! {
    KeysAndAttributes {
        "Keys" => keys: Vec<InnerMap<AttributeMap>>,
        "AttributesToGet" => attributes_to_get: Vec<String>,
        "ConsistentRead" => consistent_read: bool,
        "ProjectionExpression" => projection_expression: String,
        "ExpressionAttributeNames" => expression_attribute_names: Map<String>,
    }
}

structure! {
    BatchGetItemRequest {
        "RequestItems" => request_items: Map<KeysAndAttributes>,
        "ReturnConsumedCapacity" => return_consumed_capacity: String,
    }
}

structure! {
    PutRequest {
        "Item" => item: AttributeMap,
    }
}

structure! {
    DeleteRequest {
        "Key" => key: AttributeMap,
    }
}

structure! {
    WriteRequest {
        "PutRequest" => put_request: PutRequest,
        "DeleteRequest" => delete_request: DeleteRequest,
    }
}

structure! {
    BatchWriteItemRequest {
        "RequestItems" => request_items: Map<InnerList<WriteRequest>>,
        "ReturnConsumedCapacity" => return_consumed_capacity: String,
        "ReturnItemCollectionMetrics" => return_item_collection_metrics: String,
    }
}

structure! {
    ConditionCheck {
        "TableName" => table_name: String,
        "Key" => key: AttributeMap,
        "ConditionExpression" => condition_expression: String,
        "ExpressionAttributeNames" => expression_attribute_names: Map<String>,
        "ExpressionAttributeValues" => expression_attribute_values: Map<Attribute>,
        "ReturnValuesOnConditionCheckFailure" => return_values_on_condition_check_failure: String,
    }
}

structure! {
    Put {
        "TableName" => table_name: String,
        "Item" => item: AttributeMap,
        "ConditionExpression" => condition_expression: String,
        "ExpressionAttributeNames" => expression_attribute_names: Map<String>,
        "ExpressionAttributeValues" => expression_attribute_values: Map<Attribute>,
        "ReturnValuesOnConditionCheckFailure" => return_values_on_condition_check_failure: String,
    }
}

structure! {
    Delete {
        "TableName" => table_name: String,
        "Key" => key: AttributeMap,
        "ConditionExpression" => condition_expression: String,
        "ExpressionAttributeNames" => expression_attribute_names: Map<String>,
        "ExpressionAttributeValues" => expression_attribute_values: Map<Attribute>,
        "ReturnValuesOnConditionCheckFailure" => return_values_on_condition_check_failure: String,
    }
}

structure! {
    Update {
        "TableName" => table_name: String,
        "Key" => key: AttributeMap,
        "UpdateExpression" => update_expression: String,
        "ConditionExpression" => condition_expression: String,
        "ExpressionAttributeNames" => expression_attribute_names: Map<String>,
        "ExpressionAttributeValues" => expression_attribute_values: Map<Attribute>,
        "ReturnValuesOnConditionCheckFailure" => return_values_on_condition_check_failure: String,
    }
}

structure! {
    TransactWriteItem {
        "ConditionCheck" => condition_check: ConditionCheck,
        "Put" => put: Put,
        "Delete" => delete: Delete,
        "Update" => update: Update,
    }
}

structure! {
    TransactWriteItemsRequest {
        "TransactItems" => transact_items: Vec<TransactWriteItem>,
        "ReturnConsumedCapacity" => return_consumed_capacity: String,
        "ReturnItemCollectionMetrics" => return_item_collection_metrics: String,
        "ClientRequestToken" => client_request_token: String,
    }
}

structure! {
    Get {
        "Key" => key: AttributeMap,
        "TableName" => table_name: String,
        "ProjectionExpression" => projection_expression: String,
        "ExpressionAttributeNames" => expression_attribute_names: Map<String>,
    }
}

structure! {
    TransactGetItem {
        "Get" => get: Get,
    }
}

structure! {
    TransactGetItemsRequest {
        "TransactItems" => transact_items: Vec<TransactGetItem>,
        "ReturnConsumedCapacity" => return_consumed_capacity: String,
    }
}

structure! {
    QueryRequest {
        "TableName" => table_name: String,
        "IndexName" => index_name: String,
        "Select" => select: String,
        "AttributesToGet" => attributes_to_get: Vec<String>,
        "Limit" => limit: i32,
        "ConsistentRead" => consistent_read: bool,
        "KeyConditions" => key_conditions: Map<Condition>,
        "QueryFilter" => query_filter: Map<Condition>,
        "ConditionalOperator" => conditional_operator: String,
        "ScanIndexForward" => scan_index_forward: bool,
        "ExclusiveStartKey" => exclusive_start_key: AttributeMap,
        "ReturnConsumedCapacity" => return_consumed_capacity: String,
        "ProjectionExpression" => projection_expression: String,
        "FilterExpression" => filter_expression: String,
        "KeyConditionExpression" => key_condition_expression: String,
        "ExpressionAttributeNames" => expression_attribute_names: Map<String>,
        "ExpressionAttributeValues" => expression_attribute_values: Map<Attribute>,
    }
}

structure! {
    ScanRequest {
        "TableName" => table_name: String,
        "IndexName" => index_name: String,
        "AttributesToGet" => attributes_to_get: Vec<String>,
        "Limit" => limit: i32,
        "Select" => select: String,
        "ScanFilter" => scan_filter: Map<Condition>,
        "ConditionalOperator" => conditional_operator: String,
        "ExclusiveStartKey" => exclusive_start_key: AttributeMap,
        "ReturnConsumedCapacity" => return_consumed_capacity: String,
        "TotalSegments" => total_segments: i32,
        "Segment" => segment: i32,
        "ProjectionExpression" => projection_expression: String,
        "FilterExpression" => filter_expression: String,
        "ExpressionAttributeNames" => expression_attribute_names: Map<String>,
        "ExpressionAttributeValues" => expression_attribute_values: Map<Attribute>,
        "ConsistentRead" => consistent_read: bool,
    }
}

structure! {
    AttributeDefinition {
        "AttributeName" => attribute_name: String,
        "AttributeType" => attribute_type: String,
    }
}

structure! {
    KeySchemaElement {
        "AttributeName" => attribute_name: String,
        "KeyType" => key_type: String,
    }
}

structure! {
    ProvisionedThroughput {
        "ReadCapacityUnits" => read_capacity_units: i64,
        "WriteCapacityUnits" => write_capacity_units: i64,
    }
}

structure! {
    Projection {
        "ProjectionType" => projection_type: String,
        "NonKeyAttributes" => non_key_attributes: Vec<String>,
    }
}

structure! {
    LocalSecondaryIndex {
        "IndexName" => index_name: String,
        "KeySchema" => key_schema: Vec<KeySchemaElement>,
        "Projection" => projection: Projection,
    }
}

structure! {
    GlobalSecondaryIndex {
        "IndexName" => index_name: String,
        "KeySchema" => key_schema: Vec<KeySchemaElement>,
        "Projection" => projection: Projection,
        "ProvisionedThroughput" => provisioned_throughput: ProvisionedThroughput,
    }
}

structure! {
    StreamSpecification {
        "StreamEnabled" => stream_enabled: bool,
        "StreamViewType" => stream_view_type: String,
    }
}

structure! {
    Tag {
        "Key" => key: String,
        "Value" => value: String,
    }
}

structure! {
    SSESpecification {
        "Enabled" => enabled: bool,
    }
}

structure! {
    CreateTableRequest {
        "AttributeDefinitions" => attribute_definitions: Vec<AttributeDefinition>,
        "TableName" => table_name: String,
        "KeySchema" => key_schema: Vec<KeySchemaElement>,
        "LocalSecondaryIndexes" => local_secondary_indexes: Vec<LocalSecondaryIndex>,
        "GlobalSecondaryIndexes" => global_secondary_indexes: Vec<GlobalSecondaryIndex>,
        "BillingMode" => billing_mode: String,
        "ProvisionedThroughput" => provisioned_throughput: ProvisionedThroughput,
        "StreamSpecification" => stream_specification: StreamSpecification,
        "SSESpecification" => sse_specification: SSESpecification,
        "Tags" => tags: Vec<Tag>,
        "TableClass" => table_class: String,
        "DeletionProtectionEnabled" => deletion_protection_enabled: bool,
    }
}

structure! {
    UpdateGlobalSecondaryIndexAction {
        "IndexName" => index_name: String,
        "ProvisionedThroughput" => provisioned_throughput: ProvisionedThroughput,
    }
}

structure! {
    CreateGlobalSecondaryIndexAction {
        "IndexName" => index_name: String,
        "KeySchema" => key_schema: Vec<KeySchemaElement>,
        "Projection" => projection: Projection,
        "ProvisionedThroughput" => provisioned_throughput: ProvisionedThroughput,
    }
}

structure! {
    DeleteGlobalSecondaryIndexAction {
        "IndexName" => index_name: String,
    }
}

structure! {
    GlobalSecondaryIndexUpdate {
        "Update" => update: UpdateGlobalSecondaryIndexAction,
        "Create" => create: CreateGlobalSecondaryIndexAction,
        "Delete" => delete: DeleteGlobalSecondaryIndexAction,
    }
}

structure! {
    /// Of a replica; with ReadCapacityUnits alone.
    ProvisionedThroughputOverride {
        "ReadCapacityUnits" => read_capacity_units: i64,
    }
}

structure! {
    OnDemandThroughputOverride {
        "MaxReadRequestUnits" => max_read_request_units: i64,
    }
}

structure! {
    ReplicaGlobalSecondaryIndex {
        "IndexName" => index_name: String,
    }
}

structure! {
    CreateReplicationGroupMemberAction {
        "RegionName" => region_name: String,
        "KMSMasterKeyId" => kms_master_key_id: String,
        "ProvisionedThroughputOverride" => provisioned_throughput_override: ProvisionedThroughputOverride,
        "OnDemandThroughputOverride" => on_demand_throughput_override: OnDemandThroughputOverride,
        "GlobalSecondaryIndexes" => global_secondary_indexes: Vec<ReplicaGlobalSecondaryIndex>,
        "TableClassOverride" => table_class_override: String,
    }
}

structure! {
    UpdateReplicationGroupMemberAction {
        "RegionName" => region_name: String,
        "KMSMasterKeyId" => kms_master_key_id: String,
        "ProvisionedThroughputOverride" => provisioned_throughput_override: ProvisionedThroughputOverride,
        "OnDemandThroughputOverride" => on_demand_throughput_override: OnDemandThroughputOverride,
        "GlobalSecondaryIndexes" => global_secondary_indexes: Vec<ReplicaGlobalSecondaryIndex>,
        "TableClassOverride" => table_class_override: String,
    }
}

structure! {
    DeleteReplicationGroupMemberAction {
        "RegionName" => region_name: String,
    }
}

structure! {
    ReplicationGroupUpdate {
        "Create" => create: CreateReplicationGroupMemberAction,
        "Update" => update: UpdateReplicationGroupMemberAction,
        "Delete" => delete: DeleteReplicationGroupMemberAction,
    }
}

structure! {
    /// A witness of UpdateTable: none is built, so none is read.
    GlobalTableWitnessGroupUpdate {}
}

structure! {
    UpdateTableRequest {
        "TableName" => table_name: String,
        "AttributeDefinitions" => attribute_definitions: Vec<AttributeDefinition>,
        "BillingMode" => billing_mode: String,
        "ProvisionedThroughput" => provisioned_throughput: ProvisionedThroughput,
        "GlobalSecondaryIndexUpdates" => global_secondary_index_updates: Vec<GlobalSecondaryIndexUpdate>,
        "ReplicaUpdates" => replica_updates: Vec<ReplicationGroupUpdate>,
        "MultiRegionConsistency" => multi_region_consistency: String,
        "GlobalTableWitnessUpdates" => global_table_witness_updates: Vec<GlobalTableWitnessGroupUpdate>,
        "StreamSpecification" => stream_specification: StreamSpecification,
        "TableClass" => table_class: String,
        "DeletionProtectionEnabled" => deletion_protection_enabled: bool,
    }
}

structure! {
    /// DescribeTable, DeleteTable, DescribeTimeToLive, DescribeContinuousBackups.
    TableRequest {
        "TableName" => table_name: String,
    }
}

structure! {
    ListTablesRequest {
        "ExclusiveStartTableName" => exclusive_start_table_name: String,
        "Limit" => limit: i32,
    }
}

structure! {
    ListTagsOfResourceRequest {
        "ResourceArn" => resource_arn: String,
        "NextToken" => next_token: String,
    }
}

structure! {
    TagResourceRequest {
        "ResourceArn" => resource_arn: String,
        "Tags" => tags: Vec<Tag>,
    }
}

structure! {
    UntagResourceRequest {
        "ResourceArn" => resource_arn: String,
        "TagKeys" => tag_keys: Vec<String>,
    }
}

structure! {
    /// An operation without parameters.
    EmptyRequest {}
}
