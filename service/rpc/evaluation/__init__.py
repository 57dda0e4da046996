"""EvaluationService."""
