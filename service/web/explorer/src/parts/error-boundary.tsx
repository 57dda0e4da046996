import { Component, type ComponentChildren } from "preact";

import { messageOf } from "../item-failure";
import { Text } from "./text";

/** Keeps a fault in one page from taking the others along. */
export class ErrorBoundary extends Component<{ children: ComponentChildren }, { fault: string | undefined }> {
  override state: { fault: string | undefined } = { fault: undefined };

  static override getDerivedStateFromError(error: unknown): { fault: string } {
    return { fault: messageOf(error) };
  }

  override componentDidCatch(error: unknown): void {
    console.error(error);
  }

  override render() {
    if (this.state.fault === undefined) return this.props.children;
    return (
      <div class="note error" role="alert">
        <p><strong>This page has a fault</strong></p>
        <p><Text>{this.state.fault}</Text></p>
        <button type="button" onClick={() => this.setState({ fault: undefined })}>Show it again</button>
      </div>
    );
  }
}
