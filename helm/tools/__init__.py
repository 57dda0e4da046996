"""Programs and generators behind the make targets of the chart."""
