-- Executions of a pipeline are found by their ARNs, which begin with that of the pipeline.
DELETE FROM properties WHERE path = 'PipelineArn' AND instr(arn, '/execution/') > 0;
