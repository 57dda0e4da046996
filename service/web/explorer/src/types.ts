/** The JSON of the API, as its proto files have it. A field with its default value is left out, so all fields are optional. */

export type * from "../generated/vecgate/v1/admin_service_pb";
export type * from "../generated/vecgate/v1/alias_pb";
export type * from "../generated/vecgate/v1/collection_service_pb";
export type * from "../generated/vecgate/v1/embedder_pb";
export type * from "../generated/vecgate/v1/embedding_service_pb";
export type * from "../generated/vecgate/v1/evaluation_service_pb";
export type * from "../generated/vecgate/v1/filter_pb";
export type * from "../generated/vecgate/v1/input_pb";
export type * from "../generated/vecgate/v1/object_service_pb";
export type * from "../generated/vecgate/v1/output_fields_pb";
export type * from "../generated/vecgate/v1/property_pb";
export type * from "../generated/vecgate/v1/scope_pb";
export type * from "../generated/vecgate/v1/search_service_pb";
export type * from "../generated/vecgate/v1/sort_pb";
export type * from "../generated/vecgate/v1/tenant_pb";
export type * from "../generated/vecgate/v1/vector_pb";

/** A float as JSON has it: the values that JSON has no numbers for are words. */
export type JsonFloat = number | "NaN" | "Infinity" | "-Infinity";

/** The value of a property. */
export type JsonValue = null | boolean | number | string | JsonValue[] | { [name: string]: JsonValue };
