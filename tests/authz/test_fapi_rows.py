"""Each row of the FAPI checklist for an authorization server has a test by name, or a written reason why not here.

The rows are those of the checklist in issue 4 (AS-*, JO-*); a name must be that of a test function in this repository.
"""

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]

EDGE = "the edge's and the wire tests' business: TLS ends there"
REGISTRATION = "registration is the trust package's: POST /tpp-registration"

ROWS = {
    "AS-TLS-01..07": EDGE,
    "AS-TLS-08": ["test_metadata_agrees_with_the_routes"],
    "AS-MD-01": ["test_metadata_agrees_with_the_routes"],
    "AS-MD-02": [
        "test_discovery_end_point_verification",
        "test_metadata_tells_what_is_switched_on",
    ],
    "AS-MD-03": ["test_the_key_set_holds_public_members_only"],
    "AS-MD-04": ["test_metadata_agrees_with_the_routes"],
    "AS-CA-01": ["test_who_calls_is_checked_everywhere"],
    "AS-CA-02": [
        "test_ensure_client_assertion_in_token_endpoint",
        "test_a_wrong_assertion_type_is_refused_and_the_right_one_may_be_percent_encoded",
    ],
    "AS-CA-03": ["test_ensure_client_assertion_with_no_sub_fails"],
    "AS-CA-04": ["test_par_test_array_or_endpoint_url_as_audience_fails"],
    "AS-CA-05": [
        "test_an_assertion_over_five_minutes_is_refused",
        "test_registered_claims_of_wrong_type_are_refused",
        "test_par_ensure_jwt_client_assertions_nbf_over_60_seconds_in_the_future_fails",
    ],
    "AS-CA-06": [
        "test_the_same_assertion_at_par_and_token_works_once",
        "test_one_of_fifty_authenticates_with_an_assertion",
    ],
    "AS-CA-07": [
        "test_ensure_signed_client_assertion_with_rs256_fails",
        "test_foreign_algorithms_are_refused",
    ],
    "AS-CA-08": ["test_embedded_keys_are_refused", "test_an_unknown_key_is_worth_one_refresh"],
    "AS-CA-09": ["test_a_request_object_is_no_client_assertion"],
    "AS-CA-10": ["test_a_basic_header_beside_a_good_assertion_is_ignored"],
    "AS-CA-11": ["test_another_clients_certificate_is_refused"],
    "AS-CA-12": ["test_who_calls_is_checked_everywhere"],
    "AS-CA-13": ["test_a_certificate_alone_may_authenticate"],
    "AS-PAR-01": ["test_par_answers_201_and_stages_the_consent", "test_only_forms_are_read"],
    "AS-PAR-02": ["test_who_calls_is_checked_everywhere"],
    "AS-PAR-03": ["test_a_request_without_par_gets_the_error_page"],
    "AS-PAR-04": ["test_par_authorization_request_containing_request_uri"],
    "AS-PAR-05": ["test_ensure_unsigned_request_at_par_endpoint_fails"],
    "AS-PAR-06": ["test_a_badly_signed_object_is_refused"],
    "AS-PAR-07": ["test_a_bad_parameter_is_refused_at_par"],
    "AS-PAR-08": ["test_ensure_request_object_with_multiple_aud_succeeds"],
    "AS-PAR-09": ["test_ensure_expired_and_overlong_request_objects_fail"],
    "AS-PAR-10": ["test_a_badly_signed_object_is_refused"],
    "AS-PAR-11": [
        "test_a_client_assertion_is_no_request_object",
        "test_sub_inside_a_request_object_is_ignored",
    ],
    "AS-PAR-12": ["test_a_request_objects_jti_is_burnt_by_success_only"],
    "AS-PAR-13": ["test_ensure_response_type_code_idtoken_and_token_fail"],
    "AS-PAR-14": ["test_par_ensure_pkce_required_and_plain_rejected"],
    "AS-PAR-15": ["test_ensure_registered_redirect_uri"],
    "AS-PAR-16": ["test_ensure_other_scope_order_succeeds"],
    "AS-PAR-17": ["test_ensure_authorization_request_with_64_char_nonce_and_long_nonce"],
    "AS-PAR-18": ["test_a_bad_parameter_is_refused_at_par"],
    "AS-PAR-19": [
        "test_ambiguous_and_broken_forms_are_refused",
        "test_duplicate_members_are_refused",
    ],
    "AS-PAR-20": ["test_one_of_fifty_finishes_a_request"],
    "AS-PAR-21": ["test_every_request_leaves_exactly_one_event"],
    "AS-PAR-22": "encrypted request objects are not offered: Enc1 is the bank's key, not the Hub's",
    "AS-PAR-23": ["test_dpop_jkt_and_the_proof_at_par_must_agree"],
    "AS-RAR-01": ["test_a_bad_parameter_is_refused_at_par"],
    "AS-RAR-02": ["test_a_type_of_another_role_is_refused"],
    "AS-RAR-03": [
        "test_the_schema_of_the_contract_decides",
        "test_a_bad_consent_is_refused_at_par",
    ],
    "AS-RAR-04": ["test_the_scope_must_fit_the_type"],
    "AS-RAR-05": ["test_a_used_consent_id_is_refused", "test_one_of_fifty_opens_a_consent"],
    "AS-RAR-06": ["test_a_token_request_cannot_bring_details"],
    "AS-RAR-07": ["test_the_signed_request_is_kept_and_verifies_again"],
    "AS-AZ-01": ["test_outer_parameters_are_never_used"],
    "AS-AZ-02": ["test_another_clients_request_gets_the_error_page"],
    "AS-AZ-03": ["test_do_fail_carries_the_banks_words"],
    "AS-AZ-04": ["test_the_whole_journey_ends_with_a_token_for_the_consent"],
    "AS-AZ-05": ["test_user_rejects_authentication"],
    "AS-AZ-06": ["test_the_callback_keeps_the_registered_query"],
    "AS-AZ-07": "pages and sessions are the bank's; the interaction is test_the_first_decision_of_any_interaction_ends_all",
    "AS-AZ-08": ["test_a_tenant_may_send_browsers_on_itself"],
    "AS-AZ-09": ["test_prompt_none_is_told_to_the_tpp"],
    "AS-AZ-10": ["test_jarm_carries_the_answer_in_a_signed_response"],
    "AS-AZ-11": ["test_a_failed_redemption_does_not_burn_the_code"],
    "AS-TK-01": ["test_a_failed_redemption_does_not_burn_the_code"],
    "AS-TK-02": ["test_ensure_token_endpoint_fails_with_expired_auth_code"],
    "AS-TK-03": ["test_one_of_fifty_redeems_a_code_and_the_grant_is_then_revoked"],
    "AS-TK-04": ["test_another_client_neither_redeems_nor_burns_a_code"],
    "AS-TK-05": ["test_ensure_holder_of_key_required"],
    "AS-TK-06": ["test_the_whole_journey_ends_with_a_token_for_the_consent"],
    "AS-TK-07": ["test_a_renewed_certificate_of_the_same_client_may_refresh", "test_refresh_token"],
    "AS-TK-08": ["test_a_suspended_consent_keeps_its_refresh_token_until_it_is_lifted"],
    "AS-TK-09": ["test_a_failed_refresh_leaves_the_refresh_token_alive"],
    "AS-TK-10": ["test_client_credentials_need_scopes_of_the_role"],
    "AS-TK-11": ["test_the_whole_journey_ends_with_a_token_for_the_consent"],
    "AS-TK-12": ["test_a_description_holds_only_what_the_rfc_allows"],
    "AS-TK-13": "access tokens are opaque; RFC 9068 tokens are not offered yet",
    "AS-DP-01": ["test_a_bad_proof_is_refused", "test_exactly_one_header_is_expected"],
    "AS-DP-02": ["test_query_fragment_case_and_default_port_do_not_matter"],
    "AS-DP-03": ["test_ten_seconds_of_skew_are_tolerated"],
    "AS-DP-04": ["test_a_proof_is_single_use", "test_one_of_fifty_uses_a_proof"],
    "AS-DP-05": ["test_a_nonce_is_given_and_then_demanded"],
    "AS-DP-06": ["test_a_proof_at_par_binds_the_code", "test_dpop_jkt_binds_the_code"],
    "AS-DP-07": ["test_the_proofs_of_rfc_9449_pass", "test_a_bound_refresh_token_needs_its_key"],
    "AS-DP-08": ["test_tolerated_claims"],
    "AS-ID-01": ["test_the_whole_journey_ends_with_a_token_for_the_consent"],
    "AS-ID-02": ["test_userinfo_says_who_the_customer_is"],
    "AS-ID-03": ["test_test_claims_parameter_identity_claims"],
    "AS-IR-01": ["test_a_foreign_token_is_neither_shown_nor_revoked"],
    "AS-IR-02": ["test_a_foreign_token_is_neither_shown_nor_revoked"],
    "AS-IR-03": ["test_the_whole_journey_ends_with_a_token_for_the_consent"],
    "AS-IR-04": ["test_introspection_is_signed_when_asked_for"],
    "AS-IR-05": ["test_a_consent_that_cannot_be_used_makes_its_tokens_inactive"],
    "AS-IR-06": [
        "test_revoking_the_refresh_token_ends_the_grant",
        "test_revoking_an_unknown_token_is_no_error",
    ],
    "AS-DCR-01..05": REGISTRATION,
    "JO-01": ["test_foreign_algorithms_are_refused"],
    "JO-02": ["test_header_extensions_are_refused"],
    "JO-03": ["test_embedded_keys_are_refused"],
    "JO-04": ["test_a_badly_signed_object_is_refused", "test_a_bad_proof_is_refused"],
    "JO-05": [
        "test_other_spellings_of_a_part_are_refused",
        "test_json_that_is_not_json_is_refused",
    ],
    "JO-06": ["test_size_is_bounded_before_anything_is_decoded"],
    "JO-07": ["test_raw_signatures_give_the_expected_result"],
    "JO-08": ["test_wycheproof_jwe_opens_only_our_two_algorithms"],
    "JO-09": ["test_wycheproof_key_sets_give_the_expected_result", "test_unfit_keys_are_refused"],
    "JO-10": "fetching key sets is the trust package's",
}


def names():
    """Return the names of all tests here and in tests/protocol."""
    found = set()
    for folder in ("authz", "protocol"):
        for path in (TESTS / folder).rglob("test_*.py"):
            found |= set(re.findall(r"def (test_\w+)\(", path.read_text()))
    return found


@pytest.mark.parametrize("row", sorted(ROWS))
def test_the_row_has_its_tests_or_a_reason(row):
    tests = ROWS[row]
    if isinstance(tests, str):
        assert len(tests) > 20
    else:
        assert tests
        assert not set(tests) - names()
