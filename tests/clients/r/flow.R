# The requests of the R client openeo 1.4 in a session of a user, sent with the packages that it uses itself (httr2, jsonlite):
#   Rscript flow.R URL FOLDER
# Arguments that a user leaves out are sent as null, versions are compared as strings, tokens begin with basic//.
# Prints one line of JSON with what came of each step.
library(httr2)
library(jsonlite)

arguments <- commandArgs(trailingOnly = TRUE)
url <- arguments[1]
folder <- arguments[2]
seen <- list()
steps <- 0

encode <- function(body) toJSON(body, auto_unbox = TRUE, null = "null", digits = NA)

send <- function(path, method = "GET", body = NULL, token = NULL, expected = 200, root = api) {
  call <- request(paste0(root, path)) |> req_method(method) |> req_error(is_error = function(answer) FALSE)
  if (!is.null(token)) call <- call |> req_headers(Authorization = paste0("Bearer ", token))
  if (!is.null(body)) call <- call |> req_body_raw(encode(body), "application/json")
  answer <- req_perform(call)
  if (resp_status(answer) != expected) {
    stop(method, " ", path, ": ", resp_status(answer), " ", resp_body_string(answer))
  }
  steps <<- steps + 1
  answer
}

content <- function(answer) fromJSON(resp_body_string(answer), simplifyVector = FALSE)
ids <- function(list_) vapply(list_, function(entry) entry$id, "")

# connect()
api <- url
versions <- content(send("/.well-known/openeo"))$versions
numbers <- vapply(versions, function(version) version$api_version, "")
api <- sub("/$", "", versions[[which(numbers == max(numbers))[1]]]$url)
capabilities <- content(send("/"))
seen$version <- capabilities$api_version

# login()
credentials <- request(paste0(api, "/credentials/basic")) |> req_auth_basic("demo", "demo") |> req_perform()
token <- paste0("basic//", content(credentials)$access_token)
seen$user <- content(send("/me", token = token))$name

# list_collections(), describe_collection(), list_processes(), list_file_formats(), list_service_types(), list_udf_runtimes()
seen$collections <- ids(content(send("/collections"))$collections)
seen$dimensions <- names(content(send("/collections/s2_l2a_sample"))$`cube:dimensions`)
seen$processes <- length(content(send("/processes"))$processes)
seen$formats <- names(content(send("/file_formats"))$output)
seen$services <- names(content(send("/service_types")))

# A graph as the R client builds it: null for each parameter that was not given.
reference <- function(name) list(from_node = name)
graph <- list(
  load_collection_A = list(
    process_id = "load_collection",
    arguments = list(
      id = "s2_l2a_sample",
      spatial_extent = list(west = 11.345, south = 46.486, east = 11.35, north = 46.49),
      temporal_extent = list("2022-06-01", "2022-06-09"),
      bands = list("B04", "B08"),
      properties = NULL
    )
  ),
  filter_bands_B = list(
    process_id = "filter_bands",
    arguments = list(data = reference("load_collection_A"), bands = list("B04"), wavelengths = NULL)
  ),
  reduce_dimension_C = list(
    process_id = "reduce_dimension",
    arguments = list(
      data = reference("filter_bands_B"),
      reducer = list(process_graph = list(max_D = list(
        process_id = "max",
        arguments = list(data = list(from_parameter = "data"), ignore_nodata = NULL),
        result = TRUE
      ))),
      dimension = "t",
      context = NULL
    )
  ),
  save_result_E = list(
    process_id = "save_result",
    arguments = list(data = reference("reduce_dimension_C"), format = "GTiff", options = NULL),
    result = TRUE
  )
)

# validate_process(), compute_result()
seen$errors <- length(content(send("/validation", "POST", list(process_graph = graph), token))$errors)
answer <- send("/result", "POST", list(process = list(process_graph = graph), plan = NULL, budget = NULL), token)
seen$result <- file.path(folder, "result.tif")
writeBin(resp_body_raw(answer), seen$result)

# create_job(), estimate_job(), update_job(), start_job(), describe_job(), logs(), list_results(), download_results()
job <- list(process = list(process_graph = graph), title = "From R", description = NULL, plan = NULL, budget = NULL)
job_id <- resp_header(send("/jobs", "POST", job, token, 201), "OpenEO-Identifier")
path <- paste0("/jobs/", job_id)
seen$estimate <- content(send(paste0(path, "/estimate"), token = token))$downloads_included
invisible(send(path, "PATCH", list(title = "Changed by R"), token, 204))
invisible(send(paste0(path, "/results"), "POST", token = token, expected = 202))
repeat {
  described <- content(send(path, token = token))
  if (!described$status %in% c("queued", "running", "created")) break
  Sys.sleep(0.3)
}
seen$status <- described$status
seen$title <- described$title
seen$logs <- length(content(send(paste0(path, "/logs"), token = token))$logs)
assets <- content(send(paste0(path, "/results"), token = token))$assets
seen$asset <- file.path(folder, "asset.tif")
download.file(assets[[1]]$href, seen$asset, quiet = TRUE, mode = "wb")
seen$listed <- job_id %in% ids(content(send("/jobs", token = token))$jobs)
invisible(send(path, "DELETE", token = token, expected = 204))

# create_service(), describe_service(), delete_service()
service <- list(
  process = list(process_graph = graph), type = "xyz", title = "From R", description = NULL,
  enabled = TRUE, configuration = NULL, plan = NULL, budget = NULL
)
service_id <- resp_header(send("/services", "POST", service, token, 201), "OpenEO-Identifier")
seen$service <- content(send(paste0("/services/", service_id), token = token))$type
invisible(send(paste0("/services/", service_id), "DELETE", token = token, expected = 204))

# create_user_process(), describe_user_process(), delete_user_process()
process <- list(
  process_graph = list(add_A = list(
    process_id = "add", arguments = list(x = list(from_parameter = "x"), y = 1), result = TRUE
  )),
  parameters = list(list(name = "x", description = "A number", schema = list(type = "number"), optional = NULL, default = NULL)),
  summary = NULL, description = NULL, returns = NULL
)
invisible(send("/process_graphs/r_add_one", "PUT", process, token))
seen$parameters <- vapply(
  content(send("/process_graphs/r_add_one", token = token))$parameters, function(parameter) parameter$name, ""
)
invisible(send("/process_graphs/r_add_one", "DELETE", token = token, expected = 204))

seen$steps <- steps
cat(toJSON(seen, auto_unbox = TRUE), "\n")
