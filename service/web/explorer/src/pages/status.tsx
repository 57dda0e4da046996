/** A page to come. */
export function StatusPage({ params: _ }: { params: URLSearchParams }) {
  return (
    <>
      <h1>Status</h1>
      <p class="quiet">The server's status is not here yet.</p>
    </>
  );
}
