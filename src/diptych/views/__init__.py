"""Two random views of the same pictures: batched operations, and the pipeline that draws their parameters."""
